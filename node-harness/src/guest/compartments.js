// @ts-check
/**
 * Fresh compartments: each serves one execution. The next is made while nobody waits for it.
 *
 * They are made of SES's own parts as its `Compartment` is, with its evaluator, its scopes and what it
 * permits, and in another order: SES compiles an evaluator when every global is there, and looks at each
 * of them for that; here, when there are only those that cannot change, which are all that it uses. Nor is
 * there a `Compartment` in them: SES keeps every one that was made in a WeakMap, whose values V8 keeps until
 * it walks its whole heap.
 */
// @ts-expect-error SES has no types for its parts, nor for those below.
import { setGlobalObjectConstantProperties, setGlobalObjectEvaluators, setGlobalObjectSymbolUnscopables } from '../../node_modules/ses/src/global-object.js';
// @ts-expect-error
import { makeSafeEvaluator } from '../../node_modules/ses/src/make-safe-evaluator.js';
// @ts-expect-error
import { rejectSomeDirectEvalExpressions } from '../../node_modules/ses/src/transforms.js';

const LOCAL_TRANSFORMS = { localTransforms: [rejectSomeDirectEvalExpressions] };

/** What every compartment has of its own, and what is not given. */
const NOT_SHARED = new Set(['globalThis', 'eval', 'Function', 'Compartment', 'Infinity', 'NaN', 'undefined']);

/**
 * @param {any} Compartment  SES's, which says what is permitted
 * @param {Record<string, unknown>} globals  what each of them gets beside that
 */
export const makeCompartments = (Compartment, globals) => {
  const permitted = new Compartment().globalThis;
  const names = Object.getOwnPropertyNames(permitted).filter((name) => !NOT_SHARED.has(name));
  /** @type {[string, unknown][]} */
  const shared = Object.entries({ ...Object.fromEntries(names.map((name) => [name, permitted[name]])), ...globals });

  const make = () => {
    /** @type {Record<string, unknown>} */
    const globalThis = {};
    setGlobalObjectSymbolUnscopables(globalThis);
    setGlobalObjectConstantProperties(globalThis);
    const { safeEvaluate } = makeSafeEvaluator({ globalObject: globalThis });
    safeEvaluate('0');
    setGlobalObjectEvaluators(globalThis, safeEvaluate, () => {});
    Object.defineProperty(globalThis, 'globalThis', { value: globalThis, writable: true, enumerable: false, configurable: true });
    // To assign is many times as fast as to define, and the same but for walks over the global object.
    for (const [name, value] of shared) {
      globalThis[name] = value;
    }
    return Object.freeze({
      globalThis,
      /** @param {string} source @returns {any} */
      evaluate: (source) => safeEvaluate(source, LOCAL_TRANSFORMS),
    });
  };
  /** @type {ReturnType<typeof make> | undefined} */
  let next = make();
  return Object.freeze({
    /** A compartment that nothing was evaluated in. */
    take: () => {
      const taken = next ?? make();
      next = undefined;
      return taken;
    },
    /** Makes the next one. */
    prepare: () => {
      next ??= make();
    },
  });
};
