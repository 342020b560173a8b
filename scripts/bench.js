// Starts a supervisor on a data directory of its own, provisions an environment without packages,
// and measures executions with one awaited call: `scripts/bench` is the command.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs/promises';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

const seconds = Number(process.argv[2]);
if (!(seconds > 0)) {
  console.error('usage: scripts/bench [seconds per row]');
  process.exit(2);
}

const implementation = `
async function Initialize(agentId, backends) {}
async function Deinitialize() {}
// @endowment
async function GetRates(params = {}) { return [{ product: 'MySQL', ok: 12, failed: 3 }] }
`;
const code = 'async function main() { const rates = await GetRates({}); return rates[0].ok / (rates[0].ok + rates[0].failed) }';

const data = await fs.mkdtemp(path.join(os.tmpdir(), 'cloister-bench-'));
const supervisor = spawn('target/release/supervisor', ['serve', '--listen', '127.0.0.1:0', '--data-dir', data], {
  stdio: ['ignore', 'pipe', 'inherit'],
});

const post = (agent, url, body) =>
  new Promise((resolve, reject) => {
    const text = JSON.stringify(body);
    const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) };
    const request = http.request(url, { method: 'POST', agent, headers }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => resolve({ status: response.statusCode, body: Buffer.concat(chunks).toString() }));
    });
    request.on('error', reject);
    request.end(text);
  });

/** Runs clients for a while; each sends one request after another. */
const measure = async (url, clients, agentOf, codeOf = () => code) => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: clients });
  const times = [];
  const end = performance.now() + seconds * 1000;
  const started = performance.now();
  let number = 0;
  const client = async (index) => {
    while (performance.now() < end) {
      number += 1;
      const body = { environmentName: 'bench', userAgentId: agentOf(index, number), code: codeOf(number) };
      const before = performance.now();
      const answer = await post(agent, url, body);
      times.push(performance.now() - before);
      if (answer.status !== 200 || JSON.parse(answer.body).result !== 0.8) {
        throw new Error(`unexpected answer: ${answer.body}`);
      }
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, index) => client(index)));
  agent.destroy();
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
  return { perSecond: times.length / ((performance.now() - started) / 1000), p50: at(0.5), p99: at(0.99) };
};

try {
  const [line] = await once(createInterface(supervisor.stdout), 'line');
  const base = line.split(' on ')[1];
  const created = await post(undefined, `${base}/api/environments`, {
    environmentName: 'bench', backendUrls: {}, packageJson: {}, codeImplementation: implementation,
  });
  if (created.status !== 201) {
    throw new Error(created.body);
  }
  const url = `${base}/api/execute`;
  const rows = [
    ['warm, 1 client', 1, () => 'agent'],
    ['warm, 16 clients, 16 agents', 16, (index) => `agent-${index}`],
    ['a program never seen before, 1 client', 1, () => 'agent', (number) => `${code} // ${number}`],
    ['a new agent each time, 1 client', 1, (_, number) => `new-${number}`],
  ];
  console.log(`${os.cpus()[0].model}, ${os.cpus().length} cores, Node ${process.version} as client, ${seconds} s per row`);
  console.log('| execution with one awaited call | per second | p50 ms | p99 ms |\n|---|---|---|---|');
  for (const [name, clients, agentOf, codeOf] of rows) {
    // The first execution of an agent starts processes; it is not what a warm row measures.
    await Promise.all(Array.from({ length: clients }, (_, index) =>
      post(undefined, url, { environmentName: 'bench', userAgentId: agentOf(index, 0), code })));
    const { perSecond, p50, p99 } = await measure(url, clients, agentOf, codeOf);
    console.log(`| ${name} | ${perSecond.toFixed(0)} | ${p50.toFixed(2)} | ${p99.toFixed(2)} |`);
  }
} finally {
  supervisor.kill('SIGTERM');
  await once(supervisor, 'exit');
  await fs.rm(data, { recursive: true });
}
