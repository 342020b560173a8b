// Starts a supervisor on a data directory of its own and the peers, gives all of them the same program with one
// awaited call, and measures them with the same client: `scripts/bench` is the command.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs/promises';
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
const AWAITED = 'async function main() { const rates = await GetRates({}); return rates[0].ok / (rates[0].ok + rates[0].failed) }';
const BLOCKING = AWAITED.replace('await ', '');

const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'cloister-bench-'));
const children = [];

/** Starts a server; its first line ends with where it listens. */
const start = async (command, args) => {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  const [line] = await once(createInterface(child.stdout), 'line');
  return line.split(' on ')[1];
};

const provision = async (base, name, isolation) => {
  const body = { environmentName: name, backendUrls: {}, packageJson: {}, codeImplementation: implementation, isolation };
  const response = await fetch(`${base}/api/environments`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body),
  });
  if (response.status !== 201) {
    throw new Error(await response.text());
  }
};

/** Requests per second and milliseconds of so many clients. */
const measure = async (url, clients, body, time = seconds) => {
  const file = path.join(folder, 'body.json');
  await fs.writeFile(file, JSON.stringify(body));
  const args = ['-t1', `-c${clients}`, `-d${time}s`, '--timeout', '20s', '-s', 'scripts/peers/post.lua', url, '--', file, '"result":0.8'];
  const wrk = spawn('wrk', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  wrk.stdout.on('data', (chunk) => (text += chunk));
  await once(wrk, 'close');
  const found = /^RESULT (\S+) (\S+) (\S+) (\d+) (.*)$/m.exec(text);
  if (!found || Number(found[4]) > 0) {
    throw new Error(`unexpected answers: ${found?.[5] ?? text}`);
  }
  return { perSecond: Number(found[1]), p50: Number(found[2]), p99: Number(found[3]) };
};

try {
  const node = process.execPath;
  const base = await start('target/release/supervisor', ['serve', '--listen', '127.0.0.1:0', '--data-dir', path.join(folder, 'data')]);
  const peers = {};
  for (const name of ['unisolated', 'isolate', 'process']) {
    peers[name] = await start(node, name === 'isolate' ? ['--no-node-snapshot', `scripts/peers/${name}.js`] : [`scripts/peers/${name}.js`]);
  }
  await provision(base, 'bench');
  await provision(base, 'fresh', { guest: 'execution' });
  const url = `${base}/api/execute`;
  const run = (fields) => ({ environmentName: 'bench', userAgentId: 'agent', code: AWAITED, ...fields });
  const rows = [
    ['unisolated: SES in the server itself', peers.unisolated, 1, { code: AWAITED }],
    ['unisolated, 16 clients', peers.unisolated, 16, { code: AWAITED }],
    ['isolated-vm: a fresh isolate', peers.isolate, 1, { code: AWAITED }],
    ['isolated-vm, 16 clients', peers.isolate, 16, { code: AWAITED }],
    ['a Node process each', peers.process, 1, { code: AWAITED }],
    ['Cloister, warm', url, 1, run({})],
    ['Cloister, warm, 16 clients, one agent', url, 16, run({})],
    ['Cloister, warm, a program never seen before', url, 1, run({ code: `${AWAITED} // NUMBER` })],
    ['Cloister, warm, a call that blocks', url, 1, run({ code: BLOCKING })],
    ['Cloister, a fresh guest each', url, 1, run({ environmentName: 'fresh' })],
    ['Cloister, a new agent each', url, 1, run({ userAgentId: 'new-NUMBER' })],
  ];
  console.log(`${os.cpus()[0].model}, ${os.cpus().length} cores, Linux ${os.release()}, Node ${process.version}, ${new Date().toISOString().slice(0, 10)}, ${seconds} s per row\n`);
  console.log('| one awaited call | per second | p50 ms | p99 ms | p50 to isolated-vm | throughput to isolated-vm |\n|---|---|---|---|---|---|');
  const isolates = {};
  for (const [name, target, clients, body] of rows) {
    // The first executions start processes and warm compilers up.
    await measure(target, clients, body, clients > 1 ? 4 : 1);
    const { perSecond, p50, p99 } = await measure(target, clients, body);
    if (target === peers.isolate) {
      isolates[clients] = { perSecond, p50 };
    }
    const against = isolates[clients];
    const ratios = against ? `${(p50 / against.p50).toFixed(2)} | ${(perSecond / against.perSecond).toFixed(2)}` : ' | ';
    console.log(`| ${name} | ${perSecond.toFixed(0)} | ${p50.toFixed(2)} | ${p99.toFixed(2)} | ${ratios} |`);
  }
} finally {
  for (const child of children) {
    child.kill('SIGTERM');
  }
  await Promise.all(children.map((child) => child.exitCode ?? child.signalCode ?? once(child, 'exit')));
  await fs.rm(folder, { recursive: true });
}
