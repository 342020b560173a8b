// Starts what is measured, and ends it again.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as wait } from 'node:timers/promises';

const HERE = import.meta.dirname;
const running = new Set();

const begin = (command, args, stdio) => {
  const child = spawn(command, args, { stdio });
  running.add(child);
  child.once('exit', () => running.delete(child));
  return child;
};

/** Starts a server that prints where it listens at the end of its first line. */
const startAndRead = async (command, args) => {
  const child = begin(command, args, ['ignore', 'pipe', 'inherit']);
  const [line] = await once(createInterface(child.stdout), 'line');
  return { url: line.split(' on ')[1], child };
};

const freePort = async () => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
};

const startWorkerd = async () => {
  const port = await freePort();
  const program = path.join(HERE, 'node_modules/@cloudflare/workerd-linux-64/bin/workerd');
  const child = begin(program, ['serve', '--experimental', `--socket-addr=http=127.0.0.1:${port}`, path.join(HERE, 'workerd/config.capnp')], ['ignore', 'inherit', 'inherit']);
  const url = `http://127.0.0.1:${port}`;
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const answer = await fetch(url, { method: 'POST', body: '{"code":"async function main() {}"}' }).catch(() => undefined);
    if (answer) {
      return { url, child };
    }
    await wait(50);
  }
  throw new Error('workerd does not answer');
};

/** A peer by its name. */
export const startPeer = (name) => {
  const node = process.execPath;
  switch (name) {
    case 'workerd':
      return startWorkerd();
    case 'isolate':
      return startAndRead(node, ['--no-node-snapshot', path.join(HERE, 'isolate.js')]);
    default:
      return startAndRead(node, [path.join(HERE, `${name}.js`)]);
  }
};

export const startSupervisor = async (data) => {
  const { url, child } = await startAndRead('target/release/supervisor', ['serve', '--listen', '127.0.0.1:0', '--data-dir', data]);
  return { url: `${url}/api/execute`, base: url, child };
};

export const stop = async ({ child }) => {
  if (running.has(child)) {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
};

export const stopAll = () => Promise.all([...running].map((child) => stop({ child })));

const IMPLEMENTATION = `
async function Initialize(agentId, backends) {}
async function Deinitialize() {}
// @endowment
async function GetRates(params = {}) { return [{ product: 'MySQL', ok: 12, failed: 3 }] }
`;

export const provision = async ({ base }, name, fields = {}) => {
  const body = { environmentName: name, backendUrls: {}, packageJson: {}, codeImplementation: IMPLEMENTATION, ...fields };
  const response = await fetch(`${base}/api/environments`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body),
  });
  if (response.status !== 201) {
    throw new Error(await response.text());
  }
};

/** The processes of a supervisor that call themselves so. */
export const childrenOf = async ({ child }, own) => {
  const found = [];
  for (const name of await fs.readdir('/proc')) {
    const stat = await fs.readFile(`/proc/${name}/stat`, 'utf8').catch(() => '');
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    if (parent === child.pid && stat.includes(` (${own}) `)) {
      found.push(Number(name));
    }
  }
  return found;
};

/** Proportional set size in MB. */
export const memoryOf = async (pid) => {
  const rollup = await fs.readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+)/m.exec(rollup)[1]) / 1024;
};
