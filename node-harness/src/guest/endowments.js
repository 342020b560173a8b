// @ts-check
/**
 * The environment's functions as the program sees them: each call is a frame to the supervisor,
 * which decides whether it is made.
 */
import { toJson } from './json.js';

/**
 * @param {(fields: string) => void} sendCall  sends a call, given the text of its fields
 * @param {string[]} functions
 * @param {import('../shared/protocol.js').Budgets} budgets
 */
export const makeEndowments = (sendCall, functions, { apiCallsMax, apiCallsConcurrentMax, paramsBytesMax }) => {
  /** @type {Map<number, { resolve: (value: unknown) => void, reject: (error: Error) => void }>} */
  const waiting = new Map();
  let calls = 0;
  let ended = false;

  /** @param {string} name @param {unknown[]} values */
  const call = async (name, values) => {
    if (ended) {
      throw new Error('the program has ended');
    }
    if (values.length > 1) {
      throw new TypeError(`${name} takes one argument, an object; ${values.length} were given`);
    }
    if (calls >= apiCallsMax) {
      throw Object.assign(new RangeError(`more than ${apiCallsMax} API calls in one execution`), { code: 'api_call_limit' });
    }
    if (waiting.size >= apiCallsConcurrentMax) {
      const message = `more than ${apiCallsConcurrentMax} API calls at the same time: await some of them before you make more`;
      throw Object.assign(new RangeError(message), { code: 'api_concurrency_limit' });
    }
    const callId = (calls += 1);
    const params = toJson(values[0] === undefined ? {} : values[0], 'params', paramsBytesMax);
    return new Promise((resolve, reject) => {
      waiting.set(callId, { resolve, reject });
      sendCall(`"callId":${callId},"name":${JSON.stringify(name)},"params":${params}`);
    });
  };

  /** @type {Record<string, Function>} */
  const globals = {};
  for (const name of functions) {
    globals[name] = { [name]: /** @param {...unknown} values */ (...values) => call(name, values) }[name];
  }

  /** @param {number} callId */
  const take = (callId) => {
    const found = waiting.get(callId);
    waiting.delete(callId);
    return found;
  };

  return {
    globals: harden(globals),
    /** @param {{ callId: number, value: unknown }} message */
    settleReturn: ({ callId, value }) => take(callId)?.resolve(value),
    /** @param {{ callId: number, error: import('../shared/protocol.js').ErrorDetails }} message */
    settleThrow: ({ callId, error }) => {
      const { name, message, code } = error;
      const thrown = Object.assign(new Error(message), code === undefined ? {} : { code });
      if (name && name !== 'Error') {
        Object.defineProperty(thrown, 'name', { value: name, configurable: true, writable: true });
      }
      take(callId)?.reject(thrown);
    },
    /** Forgets pending calls; no more can be made. */
    end: () => {
      ended = true;
      waiting.clear();
    },
  };
};
