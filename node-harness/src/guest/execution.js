// @ts-check
/**
 * One execution: a fresh Compartment, the program, exactly one `completed` or `threw`, and then
 * `idle` from a macrotask, when timers are cleared and pending calls are cut off.
 */
import { Compartment } from './perimeter.js';
import { makeConsole } from './console.js';
import { makeEndowments } from './endowments.js';
import { SOURCE_NAME, describeError } from './errors.js';
import { sharedGlobals } from './globals.js';
import { toJson } from './json.js';
import { makeTimers } from './timers.js';

const { setImmediate } = globalThis;

/**
 * @param {{
 *   send: (message: unknown) => void,
 *   sendText: (json: string) => void,
 *   formatLog: (values: unknown[]) => string,
 * }} powers
 * @param {import('../shared/protocol.js').Execute} request
 */
export const makeExecution = ({ send, sendText, formatLog }, request) => {
  const { source, entry, linesBefore, functions, input, budgets } = request;
  let settled = false;

  /** @param {() => void} report */
  const settle = (report) => {
    if (settled) {
      return;
    }
    settled = true;
    timers.clearAll();
    endowments.cutOff();
    report();
    setImmediate(() => send({ idle: {} }));
  };

  /** @param {unknown} error */
  const fail = (error) =>
    settle(() => send({ threw: { error: describeError(error, { linesBefore, functions }) } }));

  const { console, log } = makeConsole({ send: (entry) => void (settled || send(entry)), formatLog }, budgets);
  const endowments = makeEndowments(sendText, functions, budgets);
  const timers = makeTimers(fail);

  const run = async () => {
    const globals = { ...sharedGlobals, ...timers.globals, ...endowments.globals, console };
    const compartment = new Compartment({ __options__: true, name: SOURCE_NAME, globals });
    const program = compartment.evaluate(`${source}\n//# sourceURL=${SOURCE_NAME}`);
    const value = await (entry === 'call' ? program(input) : program);
    const json = toJson(value, 'result', budgets.resultBytesMax);
    settle(() => sendText(`{"completed":{"value":${json}}}`));
  };

  return {
    start: () => void run().catch(fail),
    settleReturn: endowments.settleReturn,
    settleThrow: endowments.settleThrow,
    /** @param {unknown} reason */
    unhandledRejection: (reason) => log('error', ['Unhandled rejection:', reason]),
  };
};
