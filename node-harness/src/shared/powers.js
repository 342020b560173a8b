// @ts-check
/**
 * The powers of a jailed Node process. No other file of the guest or the host imports a builtin
 * of Node.
 */
import { Console } from 'node:console';
import { readSync, writeSync } from 'node:fs';
import net from 'node:net';
import { createRequire } from 'node:module';
import { types } from 'node:util';

export { types };

/** SES takes it from the module's object, where a bundle would look for it. */
const NodeConsole = Console;

/** The descriptor of the protocol socket; jail-exec puts it there. */
const PROTOCOL_FD = 3;
const PROTOCOL_ROOM_BYTES = 64 * 1024;

/** Opens the protocol socket as a stream. When the supervisor closes it, the process ends. */
export const openProtocol = () => {
  /** @type {(chunk: Buffer) => void} */
  let receive = () => {};
  // One buffer for all that comes is much less work than a stream of new ones.
  const onread = {
    buffer: Buffer.allocUnsafeSlow(PROTOCOL_ROOM_BYTES),
    callback: (/** @type {number} */ length, /** @type {Uint8Array} */ buffer) => {
      receive(Buffer.from(buffer.subarray(0, length)));
      return true;
    },
  };
  const socket = new net.Socket({ fd: PROTOCOL_FD, readable: true, writable: true, onread });
  socket.on('error', () => process.exit(1));
  socket.on('close', () => process.exit(0));
  /** What the socket takes at once; a stream does much more work for the same. @param {Buffer} bytes */
  const writeNow = (bytes) => {
    try {
      return writeSync(PROTOCOL_FD, bytes);
    } catch (error) {
      return /** @type {NodeJS.ErrnoException} */ (error).code === 'EAGAIN' ? 0 : process.exit(1);
    }
  };
  return Object.freeze({
    /** @param {Buffer} bytes */
    write: (bytes) => {
      const done = socket.writableLength === 0 ? writeNow(bytes) : 0;
      if (done < bytes.length) {
        socket.write(bytes.subarray(done));
      }
    },
    /** @param {(chunk: Buffer) => void} listener */
    onData: (listener) => {
      receive = listener;
      socket.resume();
    },
  });
};

/** Waits to be killed, which the supervisor does whenever it closes a connection. @returns {never} */
const waitForEnd = () => {
  for (;;) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  }
};

/** The protocol socket as it is: it blocks. To write nothing, or to read where there is no room, does nothing. */
export const blockingProtocol = Object.freeze({
  /** @param {Buffer} bytes */
  write: (bytes) => {
    let done = 0;
    do {
      done += writeSync(PROTOCOL_FD, bytes, done);
    } while (done < bytes.length);
  },
  /** How many bytes were put into a buffer, at least one. @param {Buffer} into @param {number} from */
  read: (into, from) => {
    const length = into.length - from;
    const done = readSync(PROTOCOL_FD, into, from, length, null);
    return done > 0 || length === 0 ? done : waitForEnd();
  },
});

/**
 * Ends a guest: another one is better than one that is not understood. `process.exit` would wait for threads
 * of Node's, which a process that was forked does not have.
 */
export const leave = () => process.abort();

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
  return new NodeConsole({ stdout: stream, stderr: stream, ignoreErrors: false, colorMode: false, inspectOptions: { customInspect: false } });
};

/**
 * Loads a module. `import` would bring up Node's loader of ES modules for a CommonJS one too.
 *
 * @param {string} file  an absolute path @returns {Promise<Record<string, any>>}
 */
export const importFile = async (file) => (file.endsWith('.cjs') ? createRequire(file)(file) : import(file));

/**
 * Makes the process a zygote, which stays in here and forks guests. In each of them this returns: sealed, it
 * opens nothing and starts no thread.
 *
 * @param {string} library  the path of the seal
 */
export const forkGuests = (library) => {
  process.dlopen({ exports: {} }, library);
  process.on('exit', leave);
};

/**
 * Says what a process that starts from the snapshot does, with its first argument.
 *
 * @param {(argument: string) => void} start
 */
export const startFromSnapshot = (start) => {
  // Loaded here, so that a host does not load it for nothing.
  const { startupSnapshot } = process.getBuiltinModule('node:v8');
  startupSnapshot.setDeserializeMainFunction(() => start(process.argv[1]));
};
