// @ts-check
/**
 * What a program finds beside ECMAScript as SES permits it. Everything here is hardened once and
 * shared by all executions: it holds no state that one execution could leave to another.
 */
import { Float16Array, Float32Array, Float64Array } from './perimeter.js';

// The one static timer of the web interfaces: it would outlive the execution that set it.
Reflect.deleteProperty(AbortSignal, 'timeout');

/** @param {string} text */
const toBase64 = (text) => btoa(text);
/** @param {string} text */
const fromBase64 = (text) => atob(text);

// Loaded before the process is sealed.
const { crypto: random } = globalThis;
random.getRandomValues(new Uint8Array(1));

/** @type {Record<string, unknown>} */
export const sharedGlobals = harden({
  Date,
  Math,
  Intl,
  Float16Array,
  Float32Array,
  Float64Array,
  URL,
  URLSearchParams,
  TextEncoder,
  TextDecoder,
  AbortController,
  AbortSignal,
  crypto: {
    randomUUID: () => random.randomUUID(),
    getRandomValues: /** @param {any} array */ (array) => random.getRandomValues(array),
  },
  structuredClone: /** @param {unknown} value */ (value) => structuredClone(value),
  btoa: toBase64,
  atob: fromBase64,
});
