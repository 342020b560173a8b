// @ts-check
/**
 * The program's `console`: Node's own formatting, and each output becomes one log entry, within the
 * budget of its execution.
 */
import { frozen } from './frozen.js';

/** What programs find, with the level of its entries. */
const LEVELS = {
  log: 'log',
  info: 'info',
  warn: 'warn',
  error: 'error',
  debug: 'debug',
  trace: 'debug',
  dirxml: 'log',
  table: 'log',
  assert: 'error',
  group: 'log',
  groupCollapsed: 'log',
  groupEnd: 'log',
  count: 'log',
  countReset: 'log',
  time: 'log',
  timeLog: 'log',
  timeEnd: 'log',
};

/** What a program may choose for `dir`; anything else could have its own code called by the formatting. */
const DIR_OPTIONS = ['depth', 'showHidden', 'compact', 'breakLength', 'sorted'];

/** @param {any} options */
const plainOptions = (options) =>
  Object.fromEntries(
    DIR_OPTIONS.map((name) => [name, options?.[name]]).filter(
      ([, value]) => value === null || typeof value === 'number' || typeof value === 'boolean',
    ),
  );

/**
 * What one execution prints.
 *
 * @param {(entry: import('../shared/protocol.js').LogEntry) => void} send
 * @param {(write: (text: string) => void) => Console} makePrinter
 * @param {{ logEntriesMax: number, logCharsMax: number }} budgets
 */
const makeOutput = (send, makePrinter, { logEntriesMax, logCharsMax }) => {
  let entries = 0;
  /** @type {any} */
  let printer;

  /** @param {string} level @param {string} text */
  const record = (level, text) => {
    entries += 1;
    if (entries > logEntriesMax) {
      send({ level: 'warn', text: `More than ${logEntriesMax} log entries; the rest is dropped.`, truncated: true });
    } else if (text.length > logCharsMax) {
      send({ level, text: `${text.slice(0, logCharsMax).toWellFormed()}… (${text.length} characters)`, truncated: true });
    } else {
      send({ level, text });
    }
  };

  let level = 'log';

  /** Prints, unless nothing more is kept. @param {string} wanted @param {string} method @param {unknown[]} values */
  return (wanted, method, values) => {
    if (entries <= logEntriesMax) {
      // Formatting `%s` may call the program's own `toString`, which may print as well.
      const outer = level;
      level = wanted;
      printer ??= makePrinter((text) => record(level, text.replace(/\n$/, '').toWellFormed()));
      try {
        printer[method](...values);
      } finally {
        level = outer;
      }
    }
  };
};

/**
 * One console for all programs of a guest, of which one runs at a time.
 *
 * @param {(write: (text: string) => void) => Console} makePrinter
 */
export const makeConsole = (makePrinter) => {
  /** @type {ReturnType<typeof makeOutput>} */
  const nowhere = () => {};
  /** Of the execution that runs. */
  let print = nowhere;
  const methods = Object.entries(LEVELS).map(([method, level]) => [
    method,
    // In an object, so that it has its name.
    { [method]: (/** @type {unknown[]} */ ...values) => print(level, method, values) }[method],
  ]);
  const console = frozen({
    ...Object.fromEntries(methods),
    /** @param {unknown} value @param {unknown} [options] */
    dir: (value, options) => print('log', 'dir', [value, plainOptions(options)]),
  });
  return Object.freeze({
    console,
    /**
     * From now on it prints for this execution.
     *
     * @param {(entry: import('../shared/protocol.js').LogEntry) => void} send
     * @param {{ logEntriesMax: number, logCharsMax: number }} budgets
     */
    begin: (send, budgets) => {
      print = makeOutput(send, makePrinter, budgets);
    },
    /** Prints no more, and forgets the execution. */
    end: () => {
      print = nowhere;
    },
  });
};
