// @ts-check
/**
 * One execution: a fresh Compartment, the program, exactly one `completed` or `threw`, and then
 * `idle` from a macrotask, when timers are cleared and pending calls are cut off.
 */
import { makeConsole } from './console.js';
import { makeEndowments } from './endowments.js';
import { SOURCE_NAME, describeError } from './errors.js';
import { toJson, typeOf } from './json.js';
import { makeTimers } from './timers.js';

const { setImmediate } = globalThis;

/** For whom a program runs, and where; the other names are its own. */
const READ_ONLY = ['__agentId', '__env'];

/**
 * @param {{
 *   sendText: (json: string) => void,
 *   exchange: ReturnType<typeof import('../shared/frames.js').makeExchange>,
 *   leave: () => void,
 *   makePrinter: (write: (text: string) => void) => Console,
 *   whenIdle: () => void,
 * }} powers
 * @param {{ globalThis: Record<string, unknown>, evaluate: (source: string) => any }} compartment  a fresh one
 * @param {import('../shared/protocol.js').Execute} request
 */
export const makeExecution = ({ sendText, exchange, leave, makePrinter, whenIdle }, compartment, request) => {
  const { executionId, source, entry, functions, input, context, budgets } = request;
  const ownId = `"executionId":${JSON.stringify(executionId)}`;
  let settled = false;

  /** Every frame carries the execution's id. @param {string} kind @param {string} [fields] */
  const message = (kind, fields) => `{"${kind}":{${ownId}${fields === undefined ? '' : `,${fields}`}}}`;
  /** @param {string} kind @param {string} [fields] */
  const send = (kind, fields) => sendText(message(kind, fields));

  /** @param {string} kind @param {string} fields */
  const settle = (kind, fields) => {
    if (settled) {
      return;
    }
    settled = true;
    timers.end();
    endowments.end();
    send(kind, fields);
    setImmediate(() => {
      if (exchange.isBroken()) {
        return leave();
      }
      send('idle');
      whenIdle();
    });
  };

  /** @param {unknown} error */
  const fail = (error) => settle('threw', `"error":${JSON.stringify(describeError(error, functions))}`);

  /** @param {import('../shared/protocol.js').LogEntry} entry */
  const sendLog = ({ level, text, truncated = false }) =>
    void (settled || send('log', `"level":"${level}","text":${JSON.stringify(text)},"truncated":${truncated}`));

  const console = makeConsole({ send: sendLog, makePrinter }, budgets);
  /** @param {any} answer @param {number} callId */
  const isAnswer = (answer, callId) => {
    const { return: returned, throw: threw } = answer;
    const to = returned ?? threw;
    return to?.executionId === executionId && to.callId === callId;
  };
  /** @param {string} call @param {number} callId */
  const ask = (call, callId) => exchange.ask(message('call', call), (answer) => isAnswer(answer, callId));
  const endowments = makeEndowments(
    { send: (call) => send('call', call), ask },
    functions,
    budgets,
  );
  const timers = makeTimers(fail);

  const run = async () => {
    for (const [name, value] of Object.entries({ ...timers.globals, ...endowments.globals, console, input, ...context })) {
      const own = !READ_ONLY.includes(name);
      Object.defineProperty(compartment.globalThis, name, { value, writable: own, enumerable: true, configurable: own });
    }
    const program = compartment.evaluate(`${source}\n//# sourceURL=${SOURCE_NAME}`);
    const value = await (entry === 'call' ? program() : program);
    settle('completed', `"resultType":"${typeOf(value)}","value":${toJson(value, 'result', budgets.resultBytesMax)}`);
  };

  return {
    start: () => void run().catch(fail),
    executionId,
    settleReturn: endowments.settleReturn,
    settleThrow: endowments.settleThrow,
    /** @param {unknown} reason */
    unhandledRejection: (reason) => {
      try {
        console.error('Unhandled rejection:', reason);
      } catch {
        console.error('Unhandled rejection of a value that cannot be shown');
      }
    },
  };
};
