// @ts-check
/**
 * Tries one forbidden act with everything that an unlocked Node can do, and prints what came of it
 * as JSON: `{ "succeeded": boolean, "detail": string }`. The supervisor runs it in each jail, and
 * the tests run it outside as the control.
 *
 *     node main.js read /etc/passwd
 *     node main.js read /etc/passwd <the seal>    as a guest, which is sealed before anything runs in it
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import { forkGuests } from '../shared/powers.js';

const [, , act, target, library] = process.argv;

/** @param {boolean} succeeded @param {string} detail */
const report = (succeeded, detail) => {
  fs.writeSync(1, JSON.stringify({ succeeded, detail }));
  process.exit(0);
};

/** @type {Record<string, () => void | string>} */
const acts = {
  /** Opens a file of the host. */
  read: () => `${fs.readFileSync(target).length} bytes`,
  /** Creates a file. */
  write: () => {
    fs.writeFileSync(target, 'written');
    return 'written';
  },
  /** Opens a TCP connection to `host:port`. */
  connect: () => {
    const [host, port] = target.split(':');
    net.connect(Number(port), host)
      .on('connect', () => report(true, 'connected'))
      .on('error', (error) => report(false, error.message));
  },
  /** Starts a program. */
  spawn: () => {
    const { error, status } = spawnSync(target);
    if (error) {
      throw error;
    }
    return `exit code ${status}`;
  },
  /** Signals another process; signal 0 only asks whether that is allowed. */
  signal: () => {
    process.kill(Number(target), 0);
    return 'allowed';
  },
};

if (library) {
  forkGuests(library);
}
try {
  const detail = acts[act]();
  if (typeof detail === 'string') {
    report(true, detail);
  }
} catch (error) {
  report(false, error instanceof Error ? error.message : String(error));
}
