// Gives Cloister and its peers the same program with one awaited call, and measures them with the same client, in one
// run: `scripts/bench` is the command.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs/promises';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { childrenOf, memoryOf, provision, startPeer, startSupervisor, stop, stopAll } from './peers/servers.js';

const [secondsGiven = '5', ...flags] = process.argv.slice(2);
const seconds = Number(secondsGiven);
if (!(seconds > 0) || flags.some((flag) => flag !== '--write')) {
  console.error('usage: scripts/bench [seconds per row] [--write]');
  process.exit(2);
}

const AWAITED = 'async function main() { const rates = await GetRates({}); return rates[0].ok / (rates[0].ok + rates[0].failed) }';
const BLOCKING = AWAITED.replace('await ', '');
const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'cloister-bench-'));
const lines = [];
const print = (line) => {
  lines.push(line);
  console.log(line);
};

/** Executions per second, and milliseconds, of so many clients. */
const load = async (url, clients, body, time) => {
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

/** The first executions start processes, and compilers warm up in each of them: sixteen agents have sixteen times as many. */
const measure = async (url, clients, body) => {
  await load(url, clients, body, clients);
  return load(url, clients, body, seconds);
};

const against = (figure, peer) => (peer ? (figure / peer).toFixed(2) : '');

/** Peers by their name and number of clients. */
const peers = {};

const row = (name, clients, { perSecond, p50, p99 }) => {
  const rates = ['unisolated', 'isolate', 'workerd', 'process'].map((peer) => against(perSecond, peers[`${peer} ${clients}`]?.perSecond));
  print(`| ${name} | ${clients} | ${perSecond.toFixed(perSecond < 100 ? 1 : 0)} | ${p50.toFixed(2)} | ${p99.toFixed(2)} | ${rates.join(' | ')} |`);
};

const measurePeers = async () => {
  const names = { unisolated: 'unisolated: SES in the server itself', isolate: 'isolated-vm, a fresh isolate', workerd: 'workerd, a fresh worker', process: 'a Node process each' };
  for (const [peer, name] of Object.entries(names)) {
    for (const clients of peer === 'process' ? [1, 4] : [1, 16]) {
      // workerd keeps every worker that it ever loaded.
      const server = await startPeer(peer);
      peers[`${peer} ${clients}`] = await measure(server.url, clients, { code: AWAITED });
      await stop(server);
      row(name, clients, peers[`${peer} ${clients}`]);
    }
  }
};

const run = (fields) => ({ environmentName: 'bench', userAgentId: 'agent', code: AWAITED, ...fields });

const measureRows = async (supervisor) => {
  const rows = [
    ['Cloister, warm', 1, {}],
    ['the same, 16 clients of one agent', 16, {}],
    ['the same, 16 clients of 16 agents', 16, { userAgentId: 'agent-SHARE' }],
    ['a program never seen before', 1, { code: `${AWAITED} // NUMBER` }],
    ['the same', 16, { code: `${AWAITED} // NUMBER` }],
    ['a call that blocks', 1, { code: BLOCKING }],
    ['a fresh guest each', 1, { environmentName: 'fresh' }],
    ['the same', 4, { environmentName: 'fresh' }],
    ['a new agent each', 1, { userAgentId: 'new-NUMBER' }],
    ['the same', 4, { userAgentId: 'new-NUMBER' }],
    ['a new agent each, hosts shared', 4, { environmentName: 'shared', userAgentId: 'new-NUMBER' }],
  ];
  for (const [name, clients, fields] of rows) {
    row(name, clients, await measure(supervisor.url, clients, run(fields)));
  }
};

/** Milliseconds of one execution. */
const execute = (supervisor, fields) =>
  new Promise((resolve, reject) => {
    const started = performance.now();
    const request = http.request(supervisor.url, { method: 'POST', headers: { 'Content-Type': 'application/json' } }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        return text.includes('"result":0.8') ? resolve(performance.now() - started) : reject(new Error(text));
      });
    });
    request.on('error', reject);
    request.end(JSON.stringify(run(fields)));
  });

const median = (values) => values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)];

/** What one execution waits for in the moments that matter. */
const measureMoments = async (data) => {
  const figure = (name, text) => print(`| ${name} | ${text} |`);
  let supervisor = await startSupervisor(data);
  const first = await execute(supervisor, { environmentName: 'fresh' });
  await wait(2000);
  figure('first execution of an environment after a restart', `${first.toFixed(0)} ms`);
  figure('the same, kept warm', `${(await execute(supervisor, { environmentName: 'warm' })).toFixed(1)} ms`);
  const spared = [];
  for (let agent = 0; agent < 9; agent += 1) {
    await wait(1000);
    await execute(supervisor, {});
    spared.push(await execute(supervisor, { userAgentId: `spared-${agent}` }));
  }
  figure('first execution of a new agent, a spare for it', `${median(spared).toFixed(1)} ms`);
  const killed = [];
  for (let time = 0; time < 9; time += 1) {
    await execute(supervisor, {});
    for (const pid of await childrenOf(supervisor, 'guest')) {
      process.kill(pid, 'SIGKILL');
    }
    await wait(1500);
    killed.push(await execute(supervisor, {}));
  }
  figure('the execution after all guests were killed', `${median(killed).toFixed(1)} ms`);
  await stop(supervisor);
  supervisor = await startSupervisor(data);
  for (let agent = 0; agent < 46; agent += 1) {
    await execute(supervisor, { environmentName: 'shared', userAgentId: `idle-${agent}` });
  }
  await wait(3000);
  const guests = await childrenOf(supervisor, 'guest');
  const sizes = await Promise.all(guests.map(memoryOf));
  figure(`an idle guest, one of ${guests.length}`, `${(sizes.reduce((sum, size) => sum + size, 0) / sizes.length).toFixed(1)} MB`);
  const zygotes = await Promise.all((await childrenOf(supervisor, 'zygote')).map(memoryOf));
  figure('the zygote that they were forked from', `${zygotes[0].toFixed(1)} MB`);
  figure('the supervisor beside them', `${(await memoryOf(supervisor.child.pid)).toFixed(1)} MB`);
  await stop(supervisor);
};

const bareStarts = async () => {
  const started = performance.now();
  let count = 0;
  const one = async () => {
    while (performance.now() - started < 2000) {
      await once(spawn(process.execPath, ['-e', '0']), 'exit');
      count += 1;
    }
  };
  await Promise.all([one(), one()]);
  return count / ((performance.now() - started) / 1000);
};

try {
  const data = path.join(folder, 'data');
  print(`${os.cpus()[0].model}, ${os.cpus().length} cores, Linux ${os.release()}, Node ${process.version}, ${new Date().toISOString().slice(0, 10)}, ${seconds} s per row after a second per client to warm up.`);
  print('The ratios are of executions per second, to the peers with as many clients.\n');
  print('| one awaited call | clients | per second | p50 ms | p99 ms | to unisolated | to isolated-vm | to workerd | to a Node process |\n|---|---|---|---|---|---|---|---|---|');
  await measurePeers();
  const supervisor = await startSupervisor(data);
  await provision(supervisor, 'bench');
  await provision(supervisor, 'fresh', { isolation: { guest: 'execution' } });
  await provision(supervisor, 'shared', { isolation: { host: 'environment' } });
  await provision(supervisor, 'warm', { keepWarm: true });
  await measureRows(supervisor);
  await stop(supervisor);
  print('\n| | |\n|---|---|');
  print(`| bare \`node -e 0\`, two at a time | ${(await bareStarts()).toFixed(0)} per second |`);
  await measureMoments(data);
  if (flags.includes('--write')) {
    const readme = await fs.readFile('README.md', 'utf8');
    const [before, rest] = readme.split('<!-- bench -->\n');
    const [, after] = rest.split('<!-- /bench -->\n');
    await fs.writeFile('README.md', `${before}<!-- bench -->\n${lines.join('\n')}\n<!-- /bench -->\n${after}`);
  }
} finally {
  await stopAll();
  await fs.rm(folder, { recursive: true });
}
