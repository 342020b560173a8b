// @ts-check
/**
 * What a program finds beside ECMAScript as SES permits it. Everything here is hardened once and
 * shared by all executions: it holds no state that one execution could leave to another.
 */
import { aborts } from './abort.js';
import { ask } from './foreign.js';
import { texts } from './text.js';
import { urls } from './url.js';

/** @param {unknown} text */
const toBase64 = (text) => ask(() => btoa(`${text}`));
/** @param {unknown} text */
const fromBase64 = (text) => ask(() => atob(`${text}`));

// What takes long to load is loaded for the snapshot. No random number is drawn for it: all guests would share it.
const { crypto: random } = globalThis;

/**
 * `Math` with random numbers of the guest's own: V8's start from a seed that all guests of a zygote share.
 */
const makeMath = () => {
  const drawn = new Uint32Array(256);
  let next = drawn.length;
  const { random: fromZero } = {
    random() {
      if (next === drawn.length) {
        random.getRandomValues(drawn);
        next = 0;
      }
      next += 2;
      // 53 bits, as many as a number below 1 has.
      return ((drawn[next - 2] >>> 5) * 0x4000000 + (drawn[next - 1] >>> 6)) / 0x20000000000000;
    },
  };
  return Object.defineProperties({}, { ...Object.getOwnPropertyDescriptors(Math), random: { value: fromZero } });
};

/** No walk over the properties of `Intl` comes upon these. */
const SEGMENTS = (() => {
  const segments = new Intl.Segmenter().segment('');
  return [Object.getPrototypeOf(segments), Object.getPrototypeOf(segments[Symbol.iterator]())];
})();

/**
 * Makes them, once the perimeter is closed.
 *
 * @param {Pick<ReturnType<typeof import('./perimeter.js').closePerimeter>, 'harden' | 'floats'>} perimeter
 * @returns {Record<string, unknown>}
 */
export const makeSharedGlobals = ({ harden, floats }) => {
  harden(SEGMENTS);
  return harden({
    Date,
    Math: makeMath(),
    Intl,
    ...floats,
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
};
