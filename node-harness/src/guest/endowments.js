// @ts-check
/**
 * The environment's functions as the program sees them: each call is a frame to the supervisor,
 * which decides whether it is made. A function gives a promise, and its `sync` waits for the value.
 */
import { toJson } from './json.js';
import { V8Error } from './perimeter.js';

/** The realm's errors by their names, so that `instanceof` tells them apart. */
const ERRORS = new Map([EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError].map((kind) => [kind.name, kind]));

/**
 * What a function threw, at the place of its call.
 *
 * @param {import('../shared/protocol.js').ErrorDetails} error
 * @param {Error} place  made where the call was
 */
const thrown = ({ name, message, code }, place) => {
  const error = Object.assign(new (ERRORS.get(name) ?? Error)(message), code === undefined ? {} : { code });
  const frames = /\n[^]*/.exec(String(place.stack))?.[0] ?? '';
  Object.defineProperty(error, 'stack', { value: `${name || 'Error'}: ${message}${frames}`, configurable: true, writable: true });
  if (name && name !== error.name) {
    Object.defineProperty(error, 'name', { value: name, configurable: true, writable: true });
  }
  return error;
};

/**
 * The same functions for all programs of a guest, of which one runs at a time; each is made when it is first needed.
 * What they have of an execution begins and ends with it.
 */
export const makeEndowments = () => {
  /** Both take the text of a call's fields. @type {{ send: (call: string) => void, ask: (call: string, callId: number) => import('../shared/protocol.js').ToGuest } | undefined} */
  let powers;
  /** @type {import('../shared/protocol.js').Budgets} */
  let budgets;
  /** @type {Map<number, { resolve: (value: unknown) => void, reject: (error: Error) => void, place: Error }>} */
  const waiting = new Map();
  let calls = 0;

  /** Counts a call. @param {string} name @param {unknown[]} values */
  const count = (name, values) => {
    if (values.length > 1) {
      throw new TypeError(`${name} takes one argument, an object; ${values.length} were given`);
    }
    const { apiCallsMax, apiCallsConcurrentMax, paramsBytesMax } = budgets;
    // It may run code of the program, so it comes before anything is counted.
    const params = toJson(values[0] === undefined ? {} : values[0], 'params', paramsBytesMax);
    if (powers === undefined) {
      throw new Error('the program has ended');
    }
    if (calls >= apiCallsMax) {
      throw Object.assign(new RangeError(`more than ${apiCallsMax} API calls in one execution`), { code: 'api_call_limit' });
    }
    if (waiting.size >= apiCallsConcurrentMax) {
      const message = `more than ${apiCallsConcurrentMax} API calls at the same time: await some of them before you make more`;
      throw Object.assign(new RangeError(message), { code: 'api_concurrency_limit' });
    }
    const callId = (calls += 1);
    return { powers, callId, fields: `"callId":${callId},"name":${JSON.stringify(name)},"params":${params}` };
  };

  /** @param {string} name @param {unknown[]} values @param {Error} place */
  const call = async (name, values, place) => {
    const { powers, callId, fields } = count(name, values);
    return new Promise((resolve, reject) => {
      waiting.set(callId, { resolve, reject, place });
      powers.send(fields);
    });
  };

  /** @param {string} name @param {unknown[]} values */
  const callSync = (name, values) => {
    const { powers, callId, fields } = count(name, values);
    const answer = powers.ask(fields, callId);
    if ('return' in answer) {
      return answer.return.value;
    }
    throw 'throw' in answer ? thrown(answer.throw.error, new V8Error()) : new Error('the call was not answered');
  };

  /** @param {string} name */
  const make = (name) => {
    const awaited = { [name]: /** @param {...unknown} values */ (...values) => call(name, values, new V8Error()) }[name];
    const sync = { [name]: /** @param {...unknown} values */ (...values) => callSync(name, values) }[name];
    return Object.freeze(Object.defineProperty(awaited, 'sync', { value: Object.freeze(sync) }));
  };

  /** @type {Map<string, Function>} */
  const made = new Map();
  /** @param {string} name */
  const functionOf = (name) => {
    const found = made.get(name) ?? make(name);
    made.set(name, found);
    return found;
  };

  /** @param {number} callId */
  const take = (callId) => {
    const found = waiting.get(callId);
    waiting.delete(callId);
    return found;
  };

  return Object.freeze({
    functionOf,
    /**
     * From now on calls are this execution's.
     *
     * @param {typeof powers} nextPowers @param {typeof budgets} nextBudgets
     */
    begin: (nextPowers, nextBudgets) => {
      powers = nextPowers;
      budgets = nextBudgets;
      calls = 0;
    },
    /** @param {{ callId: number, value: unknown }} message */
    settleReturn: ({ callId, value }) => take(callId)?.resolve(value),
    /** @param {{ callId: number, error: import('../shared/protocol.js').ErrorDetails }} message */
    settleThrow: ({ callId, error }) => {
      const call = take(callId);
      call?.reject(thrown(error, call.place));
    },
    /** Forgets the execution and its pending calls; no more can be made. */
    end: () => {
      powers = undefined;
      waiting.clear();
    },
  });
};
