// @ts-check
/** Timers of one execution. All of them end with it. */
import { frozen } from './frozen.js';

const { setTimeout, clearTimeout, setInterval, clearInterval, queueMicrotask } = globalThis;

const TIMERS_MAX = 1000;

/** @param {(error: unknown) => void} fail  called when a callback throws */
export const makeTimers = (fail) => {
  /** @type {Map<number, NodeJS.Timeout>} */
  const running = new Map();
  let last = 0;
  let ended = false;

  /** @param {Function} callback @param {unknown[]} values */
  const run = (callback, values) => {
    try {
      callback(...values);
    } catch (error) {
      fail(error);
    }
  };

  /** @param {unknown} callback @returns {Function} */
  const checked = (callback) => {
    if (typeof callback !== 'function') {
      throw new TypeError('the first argument of a timer must be a function');
    }
    if (ended) {
      throw new Error('the program has ended');
    }
    if (running.size >= TIMERS_MAX) {
      throw new RangeError(`more than ${TIMERS_MAX} timers at once`);
    }
    return callback;
  };

  /** @param {unknown} id */
  const clear = (id) => {
    const timer = running.get(Number(id));
    clearTimeout(timer);
    running.delete(Number(id));
  };

  const globals = frozen({
    /** @param {unknown} callback @param {unknown} [delay] @param {...unknown} values */
    setTimeout: (callback, delay, ...values) => {
      const after = Number(delay) || 0;
      const ready = checked(callback);
      const id = (last += 1);
      const expire = () => {
        running.delete(id);
        run(ready, values);
      };
      running.set(id, setTimeout(expire, after));
      return id;
    },
    /** @param {unknown} callback @param {unknown} [delay] @param {...unknown} values */
    setInterval: (callback, delay, ...values) => {
      const after = Number(delay) || 0;
      const ready = checked(callback);
      const id = (last += 1);
      running.set(id, setInterval(() => run(ready, values), after));
      return id;
    },
    clearTimeout: clear,
    clearInterval: clear,
    /** @param {unknown} callback */
    queueMicrotask: (callback) => {
      const ready = checked(callback);
      queueMicrotask(() => void (ended || run(ready, [])));
    },
  });

  /** Clears all timers; no more can be made. */
  const end = () => {
    ended = true;
    for (const timer of running.values()) {
      clearInterval(timer);
    }
    running.clear();
  };

  return { globals, end };
};
