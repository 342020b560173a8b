// @ts-check
/**
 * `AbortController` and `AbortSignal`, for programs that pass them among their own functions. Node's
 * would bring its events, its symbols and weak references along.
 */

import { named } from './foreign.js';

/** @typedef {{ callback: Function | { handleEvent: Function }, once: boolean }} Listener */

/** @type {(signal: AbortSignal, reason: unknown) => void} */
let abort;

/** @param {string} message */
const abortError = (message) => Object.defineProperty(new Error(message), 'name', { value: 'AbortError', configurable: true, writable: true });

class OwnAbortSignal {
  #aborted = false;
  /** @type {unknown} */
  #reason = undefined;
  /** @type {Set<Listener>} */
  #listeners = new Set();
  /** @type {Function | null} */
  onabort = null;

  static {
    abort = (signal, reason) => /** @type {OwnAbortSignal} */ (/** @type {unknown} */ (signal)).#abort(reason);
  }

  /** @param {unknown} [reason] */
  static abort(reason) {
    const signal = new OwnAbortSignal();
    signal.#abort(reason);
    return signal;
  }

  /** @param {Iterable<OwnAbortSignal>} signals */
  static any(signals) {
    const either = new OwnAbortSignal();
    for (const signal of signals) {
      if (signal.#aborted) {
        either.#abort(signal.#reason);
      } else {
        signal.#listeners.add({ callback: () => either.#abort(signal.#reason), once: true });
      }
    }
    return either;
  }

  get aborted() {
    return this.#aborted;
  }

  get reason() {
    return this.#reason;
  }

  throwIfAborted() {
    if (this.#aborted) {
      throw this.#reason;
    }
  }

  /** @param {string} type @param {Listener['callback']} callback @param {any} [options] */
  addEventListener(type, callback, options) {
    if (type === 'abort' && callback) {
      this.#listeners.add({ callback, once: Boolean(options?.once) });
    }
  }

  /** @param {string} type @param {unknown} callback */
  removeEventListener(type, callback) {
    for (const listener of this.#listeners) {
      if (type === 'abort' && listener.callback === callback) {
        this.#listeners.delete(listener);
      }
    }
  }

  get [Symbol.toStringTag]() {
    return 'AbortSignal';
  }

  /** @param {unknown} reason */
  #abort(reason) {
    if (this.#aborted) {
      return;
    }
    this.#aborted = true;
    this.#reason = reason === undefined ? abortError('This operation was aborted') : reason;
    const event = Object.freeze({ type: 'abort', target: this });
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const callback of [this.onabort, ...listeners.map((listener) => listener.callback)]) {
      // One that throws keeps no other from being called; the program's log tells of it.
      try {
        if (typeof callback === 'function') {
          Reflect.apply(callback, this, [event]);
        } else {
          callback?.handleEvent(event);
        }
      } catch (error) {
        void Promise.reject(error);
      }
    }
  }
}

class OwnAbortController {
  #signal = new OwnAbortSignal();

  get signal() {
    return this.#signal;
  }

  /** @param {unknown} [reason] */
  abort(reason) {
    abort(/** @type {any} */ (this.#signal), reason);
  }

  get [Symbol.toStringTag]() {
    return 'AbortController';
  }
}

export const aborts = {
  AbortController: named(OwnAbortController, 'AbortController'),
  AbortSignal: named(OwnAbortSignal, 'AbortSignal'),
};
