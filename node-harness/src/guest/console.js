// @ts-check
/**
 * The program's `console`: Node's own formatting, and each output becomes one log entry, within the
 * budget.
 */
import { frozen } from './frozen.js';

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
 * @param {{
 *   send: (entry: import('../shared/protocol.js').LogEntry) => void,
 *   makePrinter: (write: (text: string) => void) => Console,
 * }} powers
 * @param {{ logEntriesMax: number, logCharsMax: number }} budgets
 */
export const makeConsole = ({ send, makePrinter }, { logEntriesMax, logCharsMax }) => {
  let entries = 0;
  /** @type {Console | undefined} */
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

  /** @type {string} */
  let level = 'log';

  /** Prints, unless nothing more is kept. @param {string} wanted @param {string} method @param {unknown[]} values */
  const print = (wanted, method, values) => {
    if (entries <= logEntriesMax) {
      // Formatting `%s` may call the program's own `toString`, which may print as well.
      const outer = level;
      level = wanted;
      printer ??= makePrinter((text) => record(level, text.replace(/\n$/, '').toWellFormed()));
      try {
        /** @type {any} */ (printer)[method](...values);
      } finally {
        level = outer;
      }
    }
  };

  // Written out, because an object that V8 knows beforehand is made twenty times as fast.
  /** @type {Record<string, (...values: any[]) => void>} */
  const console = {
    log: (...values) => print('log', 'log', values),
    info: (...values) => print('info', 'info', values),
    warn: (...values) => print('warn', 'warn', values),
    error: (...values) => print('error', 'error', values),
    debug: (...values) => print('debug', 'debug', values),
    trace: (...values) => print('debug', 'trace', values),
    dir: (value, options) => print('log', 'dir', [value, plainOptions(options)]),
    dirxml: (...values) => print('log', 'dirxml', values),
    table: (...values) => print('log', 'table', values),
    assert: (...values) => print('error', 'assert', values),
    group: (...values) => print('log', 'group', values),
    groupCollapsed: (...values) => print('log', 'groupCollapsed', values),
    groupEnd: (...values) => print('log', 'groupEnd', values),
    count: (...values) => print('log', 'count', values),
    countReset: (...values) => print('log', 'countReset', values),
    time: (...values) => print('log', 'time', values),
    timeLog: (...values) => print('log', 'timeLog', values),
    timeEnd: (...values) => print('log', 'timeEnd', values),
  };
  return frozen(console);
};
