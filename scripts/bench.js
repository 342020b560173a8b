// Gives Cloister and its peers the same program with one awaited call, and measures them with the same client, in one
// run: `scripts/bench` is the command.
//
// What is compared takes turns: a machine has faster and slower minutes, and its neighbours in the cloud are why. Each
// figure is the median of all turns, and each ratio the median of what one turn gave.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs/promises';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { childrenOf, memoryOf, provision, startPeer, startSupervisor, stop, stopAll } from './peers/servers.js';

const TURNS = 15;

const [secondsGiven = '1', ...flags] = process.argv.slice(2);
const seconds = Number(secondsGiven);
if (!(Number.isInteger(seconds) && seconds > 0) || flags.some((flag) => flag !== '--write')) {
  console.error('usage: scripts/bench [seconds per turn] [--write]');
  process.exit(2);
}

const AWAITED = 'async function main() { const rates = await GetRates({}); return rates[0].ok / (rates[0].ok + rates[0].failed) }';
const BLOCKING = AWAITED.replace('await ', '');
const NEVER_SEEN = `${AWAITED} // NUMBER`;
const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'cloister-bench-'));
const lines = [];
const print = (line) => {
  lines.push(line);
  console.log(line);
};
const figure = (name, text) => print(`| ${name} | ${text} |`);

const median = (values) => values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)];

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

/** The fields of an execution. */
const run = (fields) => ({ environmentName: 'bench', userAgentId: 'agent', code: AWAITED, ...fields });

/**
 * What is measured: peers, which take the code alone, and Cloister with fields of a request. Those of a group take
 * turns; before the first, each runs for as many seconds as it has clients, since processes start and compilers
 * warm up, for sixteen agents sixteen times as many.
 */
const GROUPS = [
  [
    { key: 'unisolated', name: 'unisolated: SES in the server itself', clients: 1, peer: 'unisolated' },
    { key: 'isolate', name: 'isolated-vm, a fresh isolate', clients: 1, peer: 'isolate' },
    { key: 'workerd', name: 'workerd, a fresh worker', clients: 1, peer: 'workerd' },
    { key: 'warm', name: 'Cloister, warm', clients: 1, fields: {} },
    { key: 'never', name: 'a program never seen before', clients: 1, fields: { code: NEVER_SEEN } },
    { key: 'blocking', name: 'a call that blocks', clients: 1, fields: { code: BLOCKING } },
    { key: 'fresh', name: 'a fresh guest each', clients: 1, fields: { environmentName: 'fresh' } },
  ],
  [
    { key: 'unisolated', name: 'unisolated: SES in the server itself', clients: 16, peer: 'unisolated' },
    { key: 'isolate', name: 'isolated-vm, a fresh isolate', clients: 16, peer: 'isolate' },
    { key: 'workerd', name: 'workerd, a fresh worker', clients: 16, peer: 'workerd' },
    { key: 'warm', name: 'Cloister, one agent', clients: 16, fields: {} },
    { key: 'never', name: 'one agent, programs never seen before', clients: 16, fields: { code: NEVER_SEEN } },
    { key: 'agents', name: 'sixteen agents', clients: 16, fields: { userAgentId: 'agent-SHARE' } },
    // In the seconds after such a load warm programs are faster than otherwise.
    { key: 'warm after', name: 'Cloister, warm, in the seconds after that', clients: 1, fields: {} },
    { key: 'never after', name: 'a program never seen before, in the seconds after that', clients: 1, fields: { code: NEVER_SEEN } },
  ],
  [
    { key: 'process', name: 'a Node process each', clients: 1, peer: 'process' },
    { key: 'process', name: 'a Node process each', clients: 4, peer: 'process' },
    { key: 'fresh', name: 'Cloister, a fresh guest each', clients: 4, fields: { environmentName: 'fresh' } },
    { key: 'new', name: 'a new agent each', clients: 1, fields: { userAgentId: 'new-NUMBER' } },
    { key: 'new', name: 'a new agent each', clients: 4, fields: { userAgentId: 'new-NUMBER' } },
    { key: 'shared', name: 'a new agent each, hosts shared', clients: 4, fields: { environmentName: 'shared', userAgentId: 'new-NUMBER' } },
  ],
];

/** Measures a group. @returns its members by key and number of clients, each with what its turns gave */
const measure = async (group, supervisor) => {
  const servers = {};
  /** The address of a member. workerd starts anew each time: it keeps every worker that it loaded, and crashed after some thousands. */
  const addressOf = async ({ peer }) => {
    if (!peer) {
      return supervisor.url;
    }
    if (peer === 'workerd' && servers.workerd) {
      await stop(servers.workerd);
      delete servers.workerd;
    }
    servers[peer] ??= await startPeer(peer);
    return servers[peer].url;
  };
  const bodyOf = ({ peer, fields }) => (peer ? { code: AWAITED } : run(fields));
  const turns = group.map(() => []);
  for (const member of group) {
    await load(await addressOf(member), member.clients, bodyOf(member), member.clients);
  }
  for (let number = 0; number < TURNS; number += 1) {
    for (const [at, member] of group.entries()) {
      const url = await addressOf(member);
      // What others left in the caches is not measured.
      await load(url, member.clients, bodyOf(member), 1);
      turns[at].push(await load(url, member.clients, bodyOf(member), seconds));
    }
  }
  await Promise.all(Object.values(servers).map(stop));
  return Object.fromEntries(group.map(({ key, clients }, at) => [`${key} ${clients}`, turns[at]]));
};

/** How often one turn has of something what another has in the same turn. */
const ratio = (some, others, what) => median(some.map((turn, number) => turn[what] / others[number][what]));

const printGroup = (group, turns) => {
  for (const { key, name, clients } of group) {
    const own = turns[`${key} ${clients}`];
    const [perSecond, p50, p99] = ['perSecond', 'p50', 'p99'].map((what) => median(own.map((turn) => turn[what])));
    const ratios = ['unisolated', 'isolate', 'workerd', 'process'].map((peer) => turns[`${peer} ${clients}`]).map((peer) => (peer ? ratio(own, peer, 'perSecond').toFixed(2) : ''));
    print(`| ${name} | ${clients} | ${perSecond.toFixed(perSecond < 100 ? 1 : 0)} | ${p50.toFixed(2)} | ${p99.toFixed(2)} | ${ratios.join(' | ')} |`);
  }
};

const printRatios = (turns) => {
  figure("p50 of a warm execution, to isolated-vm's", ratio(turns['warm 1'], turns['isolate 1'], 'p50').toFixed(2));
  figure("p50 of a program never seen before, to a warm one's", ratio(turns['never 1'], turns['warm 1'], 'p50').toFixed(2));
  figure('the same in the seconds after sixteen agents', ratio(turns['never after 1'], turns['warm after 1'], 'p50').toFixed(2));
  figure('executions of warm programs, to those of programs never seen before, 16 clients', ratio(turns['warm 16'], turns['never 16'], 'perSecond').toFixed(2));
  figure("p50 of a blocking call, less an awaited one's", `${median(turns['blocking 1'].map(({ p50 }, number) => p50 - turns['warm 1'][number].p50)).toFixed(2)} ms`);
  figure("p50 of a fresh guest, to workerd's fresh worker", ratio(turns['fresh 1'], turns['workerd 1'], 'p50').toFixed(2));
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

/** A request that does nothing: what this process has not done for a while takes it several milliseconds. */
const awaken = async ({ base }) => {
  const [response] = await once(http.get(`${base}/livez`), 'response');
  await once(response.resume(), 'end');
};

/** What one execution waits for in the moments that matter. */
const measureMoments = async (data) => {
  const restarted = [];
  const keptWarm = [];
  for (let time = 0; time < 3; time += 1) {
    const supervisor = await startSupervisor(data);
    restarted.push(await execute(supervisor, { environmentName: 'fresh' }));
    await wait(2000);
    await awaken(supervisor);
    keptWarm.push(await execute(supervisor, { environmentName: 'warm' }));
    await stop(supervisor);
  }
  figure('first execution of an environment after a restart', `${median(restarted).toFixed(0)} ms`);
  figure('the same, kept warm', `${median(keptWarm).toFixed(1)} ms`);
  let supervisor = await startSupervisor(data);
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
  print(`${os.cpus()[0].model}, ${os.cpus().length} cores, Linux ${os.release()}, Node ${process.version}, ${new Date().toISOString().slice(0, 10)}, medians of ${TURNS} turns of ${seconds} s.`);
  print('The ratios are of executions per second in the same turn, to the peers with as many clients.\n');
  const supervisor = await startSupervisor(data);
  await provision(supervisor, 'bench');
  await provision(supervisor, 'fresh', { isolation: { guest: 'execution' } });
  await provision(supervisor, 'shared', { isolation: { host: 'environment' } });
  await provision(supervisor, 'warm', { keepWarm: true });
  print('| one awaited call | clients | per second | p50 ms | p99 ms | to unisolated | to isolated-vm | to workerd | to a Node process |\n|---|---|---|---|---|---|---|---|---|');
  const turns = {};
  for (const group of GROUPS) {
    const measured = await measure(group, supervisor);
    printGroup(group, measured);
    Object.assign(turns, measured);
  }
  await stop(supervisor);
  print('\n| | |\n|---|---|');
  printRatios(turns);
  figure('bare `node -e 0`, two at a time', `${(await bareStarts()).toFixed(0)} per second`);
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
