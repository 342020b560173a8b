// @ts-check
/**
 * What a program finds beside ECMAScript as SES permits it. Everything here is hardened once and
 * shared by all executions: it holds no state that one execution could leave to another.
 */
import { aborts } from './abort.js';
import { ask } from './foreign.js';
import { Float16Array, Float32Array, Float64Array } from './perimeter.js';
import { texts } from './text.js';
import { urls } from './url.js';

/** @param {unknown} text */
const toBase64 = (text) => ask(() => btoa(`${text}`));
/** @param {unknown} text */
const fromBase64 = (text) => ask(() => atob(`${text}`));

// Loaded before the process is sealed.
const { crypto: random } = globalThis;
random.getRandomValues(new Uint8Array(1));

// No walk over the properties of `Intl` comes upon what its methods return.
const segments = new Intl.Segmenter().segment('');
harden([Object.getPrototypeOf(segments), Object.getPrototypeOf(segments[Symbol.iterator]())]);

/** @type {Record<string, unknown>} */
export const sharedGlobals = harden({
  Date,
  Math,
  Intl,
  Float16Array,
  Float32Array,
  Float64Array,
  ...urls,
  ...texts,
  ...aborts,
  crypto: {
    randomUUID: () => ask(() => random.randomUUID()),
    getRandomValues: /** @param {any} array */ (array) => ask(() => random.getRandomValues(array)),
  },
  structuredClone: /** @param {unknown} value */ (value) => ask(() => structuredClone(value)),
  btoa: toBase64,
  atob: fromBase64,
});
