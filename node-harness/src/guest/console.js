// @ts-check
/** The program's `console`: each call becomes one log entry, within the budget. */

/**
 * @param {{ send: (entry: import('../shared/protocol.js').LogEntry) => void, formatLog: (values: unknown[]) => string }} powers
 * @param {{ logEntriesMax: number, logCharsMax: number }} budgets
 */
export const makeConsole = ({ send, formatLog }, { logEntriesMax, logCharsMax }) => {
  let entries = 0;

  /** @param {string} level @param {unknown[]} values */
  const log = (level, values) => {
    entries += 1;
    if (entries > logEntriesMax + 1) {
      return;
    }
    if (entries === logEntriesMax + 1) {
      send({ level: 'warn', text: `More than ${logEntriesMax} log entries; the rest is dropped.`, truncated: true });
      return;
    }
    const text = formatLog(values).toWellFormed();
    if (text.length > logCharsMax) {
      send({ level, text: `${text.slice(0, logCharsMax).toWellFormed()}… (${text.length} characters)`, truncated: true });
      return;
    }
    send({ level, text });
  };

  /** @type {Record<string, (...values: unknown[]) => void>} */
  const console = {
    log: (...values) => log('log', values),
    info: (...values) => log('info', values),
    warn: (...values) => log('warn', values),
    error: (...values) => log('error', values),
    debug: (...values) => log('debug', values),
    trace: (...values) => log('debug', values),
    dir: (value) => log('log', [value]),
    assert: (condition, ...values) => void (condition || log('error', ['Assertion failed', ...values])),
  };
  return { console: harden(console), log };
};
