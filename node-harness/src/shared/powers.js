// @ts-check
/**
 * The powers of a jailed Node process. No other file of the guest or the host imports a builtin
 * of Node.
 */
import { Console } from 'node:console';
import { readSync, writeSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import net from 'node:net';
import { types } from 'node:util';

export { types };

/** The descriptor of the protocol socket; jail-exec puts it there. */
const PROTOCOL_FD = 3;
/** The same of a guest's socket for calls that it waits for; it blocks. */
const CALLS_FD = 4;

/** Opens the protocol socket. When the supervisor closes it, the process ends. */
export const openProtocol = () => {
  const socket = new net.Socket({ fd: PROTOCOL_FD, readable: true, writable: true });
  socket.on('error', () => process.exit(1));
  socket.on('close', () => process.exit(0));
  return Object.freeze({
    /** @param {Buffer} bytes */
    write: (bytes) => void socket.write(bytes),
    /** @param {(chunk: Buffer) => void} listener */
    onData: (listener) => void socket.on('data', listener),
  });
};

/** The socket on which everything waits. When the supervisor closes it, the process ends. */
export const waitingSocket = Object.freeze({
  /** @param {Buffer} bytes */
  write: (bytes) => {
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(CALLS_FD, bytes, done);
    }
  },
  /** @param {number} length @returns {Buffer} */
  read: (length) => {
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length; ) {
      const count = readSync(CALLS_FD, bytes, done, length - done, null);
      if (count === 0) {
        process.exit(0);
      }
      done += count;
    }
    return bytes;
  },
});

/** Ends the process: another one is better than one that is not understood. */
export const leave = () => process.exit(1);

/** @param {(reason: unknown) => void} listener */
export const onUnhandledRejection = (listener) => void process.on('unhandledRejection', listener);

/**
 * A console that prints as Node's does. It calls no method of the values, but where a format such as
 * `%s` asks for one.
 *
 * @param {(text: string) => void} write  called with each output
 */
export const makePrinter = (write) => {
  const stream = /** @type {NodeJS.WritableStream} */ (/** @type {unknown} */ ({ write }));
  return new Console({ stdout: stream, stderr: stream, ignoreErrors: false, colorMode: false, inspectOptions: { customInspect: false } });
};

/** @param {string} file @returns {Promise<Record<string, any>>} */
export const importFile = (file) => import(file);

/**
 * Seals the process: from here on it opens nothing and starts no thread. The first use of the
 * file system starts the thread of libuv's pool, which could not be started afterwards.
 *
 * @param {string} library  the path of the seal; loading it is sealing
 */
export const seal = async (library) => {
  await stat('/').catch(() => {});
  process.dlopen({ exports: {} }, library);
};

/** Loads `ses` as one bundled file, which starts faster than its sixty modules. */
export const loadSes = () => createRequire(import.meta.url)('ses');
