// What has to hold on another kernel, with control groups of version 2: the doctor, an execution, a time-out
// of a program that steps back, an out-of-memory kill, and forbidden system calls of native code in a guest and in a host.
const { execFileSync, spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const { setTimeout: wait } = require('node:timers/promises');

const base = 'http://127.0.0.1:3000';
let failures = 0;

const check = (name, holds, seen) => {
  failures += holds ? 0 : 1;
  console.log(`${holds ? 'ok  ' : 'FAIL'} ${name}${holds ? '' : `: ${JSON.stringify(seen)}`}`);
};

const post = async (path, body) => {
  const response = await fetch(base + path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  return response.json();
};

const provision = (name, codeImplementation) =>
  post('/api/environments', { environmentName: name, backendUrls: {}, packageJson: {}, codeImplementation });

const execute = (environmentName, userAgentId, code, timeout) => post('/api/execute', { environmentName, userAgentId, code, timeout });

/** What the analyzer does not know, and an owned guest has. */
const owned = (code) => `const { frame, received, executionId, syscall } = globalThis; ${code}`;

/** Runs `act` while a supervisor serves, and ends it in order. */
const serving = async (installation, data, act) => {
  const supervisor = spawn(`${installation}/bin/supervisor`, ['serve', '--listen', '127.0.0.1:3000', '--data-dir', data], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, CLOISTER_LOG: 'error' },
  });
  const listens = await new Promise((resolve) => {
    supervisor.stdout.once('data', () => resolve(true));
    supervisor.once('exit', () => resolve(false));
  });
  check(`${installation} serves`, listens);
  if (listens) {
    await act(supervisor);
    supervisor.kill('SIGTERM');
    const [code] = await new Promise((resolve) => supervisor.once('exit', (...how) => resolve(how)));
    check(`${installation} ends in order`, code === 0, code);
  }
};

const groupsThatStepBack = () =>
  fs.globSync('/sys/fs/cgroup/**/cpu.idle').filter((file) => fs.readFileSync(file, 'utf8') === '1\n').length;

const doctor = () => {
  const { status, stdout } = spawnSync('/product/bin/supervisor', ['doctor', '-o', 'json'], { encoding: 'utf8' });
  const report = JSON.parse(stdout);
  check('the doctor finds the machine safe', status === 0 && report.safe, stdout);
  for (const { layer, enforced, detail } of report.layers) {
    check(`${layer} is enforced: ${detail}`, enforced);
  }
  check('control groups are of version 2', report.layers.some(({ layer, detail }) => layer === 'cgroup' && detail.includes('version 2')));
  check(`${report.probes.length} probes are refused`, report.probes.every(({ outcome }) => outcome === 'refused'), report.probes);
};

const product = () =>
  serving('/product', '/data', async () => {
    const created = await provision('test', fs.readFileSync('/environment.js', 'utf8'));
    check('an environment is provisioned', created.status === 'ready', created);
    const echo = await execute('test', 'a', 'return await Echo({ a: 1 })');
    check('a program runs', echo.result?.a === 1 && echo.usage.peakMemoryBytes > 1e6, echo);
    const ending = execute('test', 'b', 'for (;;) {}', 3000).then((ended) => ({ ended }));
    let [back, endless] = [];
    while (!endless) {
      back ||= groupsThatStepBack();
      endless = (await Promise.race([ending, wait(50)]))?.ended;
    }
    check('an endless program steps back', back === 1, back);
    check('an endless program is ended', endless.status === 'timeout', endless);
    check('nobody has stepped back when it has ended', groupsThatStepBack() === 0);
    const bomb = await execute('test', 'c', 'const a = []; for (;;) a.push(new Uint8Array(10000000).fill(1))');
    check('a memory bomb is out of memory', bomb.status === 'out_of_memory', bomb);
    const threads = await execute('test', 'a', 'return await Threads({ count: 40 })');
    check('threads are bounded', threads.status !== 'completed', threads);
    const after = await execute('test', 'a', 'return await Echo({ a: 2 })');
    check('the next program runs', after.result?.a === 2, after);
  });

/** The probes, with everything filled in that they are aimed at. */
const probes = (victim) => {
  fs.mkdirSync('/tmp/probes');
  for (const name of ['file', 'removable', 'renamed', 'linked']) {
    fs.writeFileSync(`/tmp/probes/${name}`, 'content');
  }
  const abstract = Buffer.from('cloister-probe');
  net.createServer().listen(`\0${abstract}`).unref();
  const places = { victim, victim_clock: (~victim << 3) | 2, parent: process.pid, data: '/attacked-data', folder: '/tmp/probes', abstract: abstract.toString('hex'), abstract_bytes: abstract.length + 3 };
  const fill = (line) => line.replace(/\{(\w+)\}/g, (_, place) => places[place]);
  const lines = fs.readFileSync('/system-calls.txt', 'utf8').split('\n').filter((line) => line && !line.startsWith('#'));
  return lines.map((line) => fill(line).split(/: (.*)/));
};

/** Whether the call succeeds outside; some need what a small machine does not have. */
const control = (line) => {
  const { status, stdout } = spawnSync('/bin/unshare', ['-m', '-i', '-u', '/raw', line], { encoding: 'utf8' });
  return status === 0 && (stdout.trim() === '' || Number(stdout) >= 0);
};

const REFUSALS = [-1, -2, -13, -30, -38, -111];

const attacked = () =>
  serving('/attacked', '/attacked-data', async () => {
    const victim = spawn('/bin/sleep', ['900']);
    await provision('test', fs.readFileSync('/environment.js', 'utf8'));
    await provision('raw', fs.readFileSync('/raw-host.js', 'utf8'));
    const usable = probes(victim.pid).filter(([, line]) => control(line));
    check(`${usable.length} system calls succeed outside`, usable.length >= 100);
    const call = (line) =>
      `frame({ call: { executionId, callId: 1, name: 'Raw', params: { line: ${JSON.stringify(line)} } } });
       while (!received.length) await new Promise((go) => setTimeout(go, 1));
       const [{ return: answer }] = received.splice(0); return answer.value`;
    const kinds = {
      guest: (line) => execute('test', 'a', owned(`return Number(syscall(${JSON.stringify(line)}))`), 60_000),
      host: (line) => execute('raw', 'a', owned(call(line)), 60_000),
    };
    for (const [kind, attempt] of Object.entries(kinds)) {
      const own = await attempt('39');
      check(`native code in a ${kind} makes system calls`, own.result > 0, own);
      const through = [];
      for (const [name, line] of usable) {
        const { result, errorDetails, error } = await attempt(line);
        const killed = errorDetails?.code === 'forbidden_system_call' || /forbidden system call/.test(error ?? '');
        if (!killed && !REFUSALS.includes(result)) {
          through.push([name, result, error]);
        }
      }
      check(`${usable.length} system calls are refused in a ${kind}`, through.length === 0, through);
    }
    victim.kill();
  });

const main = async () => {
  doctor();
  await product();
  await attacked();
  const left = execFileSync('/bin/find', ['/sys/fs/cgroup', '-type', 'd', '-name', 'cloister-*'], { encoding: 'utf8' }).trim();
  check('no control group is left', left === '', left);
  process.exit(failures === 0 ? 0 : 1);
};

main().catch((error) => {
  console.log('FAIL', error);
  process.exit(1);
});
