// @ts-check
/**
 * Timers of the execution that runs. All of them end with it. They do not use Node's: the guest waits in one
 * system call for whatever the supervisor sends, and asks it to be woken.
 */
import { frozen } from './frozen.js';

const { queueMicrotask, performance } = globalThis;

const TIMERS_MAX = 1000;
/** As in Node: what is shorter, longer or no number is 1 ms. */
const DELAY_MS_MAX = 2 ** 31 - 1;

/**
 * @typedef {{ id: number, due: number, every: number | undefined, callback: Function, values: unknown[] }} Timer
 */

/** The same functions for all programs of a guest, of which one runs at a time. */
export const makeTimers = () => {
  /** @type {(error: unknown) => void} */
  const ignore = () => {};
  /** Called when a callback throws. */
  let fail = ignore;
  /** @type {Map<number, Timer>} */
  const running = new Map();
  /** Those whose time has come, in their order. @type {Timer[]} */
  let ready = [];
  let last = 0;
  let ended = true;
  /** When the supervisor will wake us. */
  let wakes = Infinity;

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

  /** @param {unknown} callback @param {unknown} delay @param {unknown[]} values @param {boolean} repeats */
  const set = (callback, delay, values, repeats) => {
    const after = Math.trunc(Number(delay));
    const wait = after >= 1 && after <= DELAY_MS_MAX ? after : 1;
    const timer = { due: performance.now() + wait, every: repeats ? wait : undefined, callback: checked(callback), values };
    const id = (last += 1);
    running.set(id, { id, ...timer });
    return id;
  };

  /** @param {unknown} id */
  const clear = (id) => void running.delete(Number(id));

  const globals = frozen({
    /** @param {unknown} callback @param {unknown} [delay] @param {...unknown} values */
    setTimeout: (callback, delay, ...values) => set(callback, delay, values, false),
    /** @param {unknown} callback @param {unknown} [delay] @param {...unknown} values */
    setInterval: (callback, delay, ...values) => set(callback, delay, values, true),
    clearTimeout: clear,
    clearInterval: clear,
    /** @param {unknown} callback */
    queueMicrotask: (callback) => {
      const ready = checked(callback);
      queueMicrotask(() => void (ended || run(ready, [])));
    },
  });

  return Object.freeze({
    globals,
    /** From now on they are this execution's, whose callbacks may throw. @param {(error: unknown) => void} fails */
    begin: (fails) => {
      fail = fails;
      last = 0;
      ended = false;
      wakes = Infinity;
    },
    /** The supervisor woke us: those that are due get ready. */
    wake: () => {
      wakes = Infinity;
      const now = performance.now();
      ready = [...running.values()].filter((timer) => timer.due <= now).sort((one, other) => one.due - other.due || one.id - other.id);
    },
    /** Runs the next timer that is ready; false when there is none. */
    runNext: () => {
      for (let timer = ready.shift(); timer !== undefined; timer = ready.shift()) {
        // An earlier one may have cleared it.
        if (running.has(timer.id)) {
          if (timer.every === undefined) {
            running.delete(timer.id);
          } else {
            timer.due = performance.now() + timer.every;
          }
          run(timer.callback, timer.values);
          return true;
        }
      }
      return false;
    },
    /** In how many milliseconds to be woken, if that is sooner than the supervisor knows. */
    wait: () => {
      if (running.size === 0) {
        return undefined;
      }
      let next = Infinity;
      for (const { due } of running.values()) {
        next = Math.min(next, due);
      }
      if (next >= wakes) {
        return undefined;
      }
      wakes = next;
      return Math.max(1, Math.ceil(next - performance.now()));
    },
    /** Clears all timers; no more can be made, and the execution is forgotten. */
    end: () => {
      ended = true;
      fail = ignore;
      ready = [];
      running.clear();
    },
  });
};
