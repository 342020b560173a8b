// @ts-check
/**
 * One execution: a fresh Compartment, the program, and exactly one `completed` or `threw` when its timers
 * are cleared and its pending calls cut off.
 */
import { describeError, named } from './errors.js';
import { toJson, typeOf } from './json.js';

/** For whom a program runs, and where; the other names are its own. */
const READ_ONLY = ['__agentId', '__env'];

/** What follows it runs with nothing of the harness on the stack, which V8 walks for the place of each call. */
const alone = Promise.resolve();

/**
 * Gives a program a value of its own, as a property of its global object. To assign it is many times as fast as to
 * define it, and the same where nothing of that name is inherited.
 *
 * @param {Record<string, unknown>} globalThis @param {string} name @param {unknown} value
 */
const give = (globalThis, name, value) => {
  const own = !READ_ONLY.includes(name);
  if (own && !(name in Object.getPrototypeOf(globalThis))) {
    globalThis[name] = value;
  } else {
    Object.defineProperty(globalThis, name, { value, writable: own, enumerable: true, configurable: own });
  }
};

/**
 * @param {{
 *   channel: { send: (json: string) => void, ask: (json: string, isAnswer: (message: any) => boolean) => any },
 *   endowments: ReturnType<typeof import('./endowments.js').makeEndowments>,
 *   printing: ReturnType<typeof import('./console.js').makeConsole>,
 *   timers: ReturnType<typeof import('./timers.js').makeTimers>,
 * }} powers  they serve one execution after another
 * @param {{ globalThis: Record<string, unknown>, evaluate: (source: string, gate?: () => void) => any }} compartment  a fresh one
 * @param {import('../shared/protocol.js').Execute} request
 */
export const makeExecution = ({ channel, endowments, printing, timers }, compartment, request) => {
  const { executionId, source, entry, functions, input, context, budgets } = request;
  const ownId = `"executionId":${JSON.stringify(executionId)}`;
  let ended = false;

  /** Every message carries the execution's id. @param {string} kind @param {string} [fields] */
  const message = (kind, fields) => `{"${kind}":{${ownId}${fields === undefined ? '' : `,${fields}`}}}`;
  /** @param {string} kind @param {string} [fields] */
  const send = (kind, fields) => channel.send(message(kind, fields));

  const end = () => {
    ended = true;
    timers.end();
    endowments.end();
    printing.end();
  };

  /** @param {string} kind @param {string} fields */
  const settle = (kind, fields) => {
    if (!ended) {
      end();
      send(kind, fields);
    }
  };

  /** @param {unknown} error */
  const fail = (error) => settle('threw', `"error":${JSON.stringify(describeError(error, functions))}`);

  /** @param {import('../shared/protocol.js').LogEntry} entry */
  const sendLog = ({ level, text, truncated = false }) =>
    void (ended || send('log', `"level":"${level}","text":${JSON.stringify(text)},"truncated":${truncated}`));

  /** @param {any} answer @param {number} callId */
  const isAnswer = (answer, callId) => {
    const { return: returned, throw: threw } = answer;
    const to = returned ?? threw;
    return to?.executionId === executionId && to.callId === callId;
  };
  /** @param {string} call @param {number} callId */
  const ask = (call, callId) => channel.ask(message('call', call), (answer) => isAnswer(answer, callId));

  /** @param {() => void} [gate] */
  const run = async (gate) => {
    endowments.begin({ send: (call) => send('call', call), ask }, budgets);
    printing.begin(sendLog, budgets);
    timers.begin(fail);
    for (const name of functions) {
      give(compartment.globalThis, name, endowments.functionOf(name));
    }
    give(compartment.globalThis, 'input', input);
    for (const name of Object.keys(context)) {
      give(compartment.globalThis, name, context[name]);
    }
    const program = compartment.evaluate(named(source), gate);
    const value = await (entry === 'call' ? alone.then(() => program()) : program);
    settle('completed', `"resultType":"${typeOf(value)}","value":${toJson(value, 'result', budgets.resultBytesMax)}`);
  };

  return {
    start: () => void run().catch(fail),
    /**
     * Gets everything ready, and starts if it is confirmed, for which it waits once the program is compiled. Otherwise
     * nothing of the program has run, and it is over.
     *
     * @param {() => boolean} isConfirmed
     */
    startIf: (isConfirmed) => {
      let confirmed = false;
      const gate = () => {
        confirmed = isConfirmed();
        if (!confirmed) {
          throw new Error('another program came');
        }
      };
      run(gate).catch((error) => void (confirmed && fail(error)));
      if (!confirmed) {
        end();
      }
      return confirmed;
    },
    /** What the supervisor says to this execution. @param {any} message */
    receive: ({ return: returned, throw: threw, wake }) => {
      if (returned?.executionId === executionId) {
        endowments.settleReturn(returned);
      } else if (threw?.executionId === executionId) {
        endowments.settleThrow(threw);
      } else if (wake?.executionId === executionId) {
        timers.wake();
      }
    },
    hasEnded: () => ended,
    /** Says that nothing of the program is left. */
    sendIdle: () => send('idle'),
    /** Runs a timer whose time has come; false when there is none. */
    runTimer: timers.runNext,
    /** Asks to be woken, if a timer is to end sooner than the supervisor knows. */
    waitForTimers: () => {
      const ms = timers.wait();
      if (ms !== undefined) {
        send('wait', `"ms":${ms}`);
      }
    },
    /** @param {unknown} reason */
    unhandledRejection: (reason) => {
      try {
        printing.console.error('Unhandled rejection:', reason);
      } catch {
        printing.console.error('Unhandled rejection of a value that cannot be shown');
      }
    },
  };
};
