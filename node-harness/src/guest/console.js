// @ts-check
/**
 * The program's `console`: Node's own formatting, and each output becomes one log entry, within the
 * budget.
 */
import { frozen } from './frozen.js';

/** The level of what each method prints. */
const LEVELS = /** @type {const} */ ({
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
});

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

  /** Prints, unless nothing more is kept. @param {string} wanted @param {(printer: any) => void} act */
  const print = (wanted, act) => {
    if (entries <= logEntriesMax) {
      // Formatting `%s` may call the program's own `toString`, which may print as well.
      const outer = level;
      level = wanted;
      printer ??= makePrinter((text) => record(level, text.replace(/\n$/, '').toWellFormed()));
      try {
        act(printer);
      } finally {
        level = outer;
      }
    }
  };

  /** @type {Record<string, (...values: any[]) => void>} */
  const console = {
    dir: (value, options) => print('log', (printer) => printer.dir(value, plainOptions(options))),
  };
  for (const [name, level] of Object.entries(LEVELS)) {
    console[name] = (...values) => print(level, (printer) => printer[name](...values));
  }
  return frozen(console);
};
