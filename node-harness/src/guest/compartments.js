// @ts-check
/**
 * Fresh compartments: each serves one execution. The next is made while nobody waits for it.
 *
 * They are to a program what SES's `Compartment` is, with its evaluators, its checks of a text and what it
 * permits, and are made in another way. SES defines each property of an empty object and compiles an evaluator
 * for it; here a constructor gives V8 the shape of the global object beforehand, and what a program is evaluated
 * in was compiled once. Nor is there a `Compartment` in them: SES keeps every one that was made in a WeakMap,
 * whose values V8 keeps until it walks its whole heap.
 */
// @ts-expect-error SES has no types for its parts, nor for those below.
import { FERAL_EVAL, FERAL_FUNCTION } from '../../node_modules/ses/src/commons.js';
// @ts-expect-error
import { setGlobalObjectConstantProperties, setGlobalObjectEvaluators, setGlobalObjectSymbolUnscopables } from '../../node_modules/ses/src/global-object.js';
// @ts-expect-error
import { strictScopeTerminator } from '../../node_modules/ses/src/strict-scope-terminator.js';
// @ts-expect-error
import { mandatoryTransforms, rejectSomeDirectEvalExpressions } from '../../node_modules/ses/src/transforms.js';

/** What compartments have in another way, and what is not given. */
const NOT_SHARED = new Set(['globalThis', 'eval', 'Function', 'Compartment', 'Infinity', 'NaN', 'undefined']);

/**
 * Gives a function that evaluates one text, in which names are looked for from the inside out: constants, V8's
 * `eval` once, the program's globals, and an end that claims all others. It is sloppy for the sake of `with`;
 * the text is strict.
 */
const enter = FERAL_FUNCTION(`
  with (this.end) with (this.globalThis) with (this.once) {
    const Infinity = 1 / 0, NaN = 0 / 0, undefined = void 0;
    return function () { 'use strict'; return eval(arguments[0]); };
  }
`);

/**
 * V8's `eval`, for whoever asks first, which is `enter`'s function. Each text gets a scope of its own: should the
 * stack end before it is taken, nothing that runs can see it.
 */
const makeOnce = () => {
  const once = {
    __proto__: null,
    get eval() {
      Reflect.deleteProperty(once, 'eval');
      return FERAL_EVAL;
    },
  };
  return once;
};

/**
 * A statement before all others, whatever the text is: V8 has compiled the whole of it when the gate is called, and
 * a gate that throws is all that runs. It stands on the first line, where a wrapped program has only its wrapper.
 */
const GATE = 'arguments[1]();';

/** @param {object} globalThis @param {string} source @param {() => void} [gate] @returns {any} */
const evaluateIn = (globalThis, source, gate) => {
  const checked = mandatoryTransforms(source);
  const evaluate = Reflect.apply(enter, { end: strictScopeTerminator, globalThis, once: makeOnce() }, []);
  return Reflect.apply(evaluate, globalThis, gate ? [GATE + checked, gate] : [checked]);
};

/**
 * A constructor of global objects. What cannot be changed in any of them they inherit.
 *
 * @param {Record<string, unknown>} shared  what each of them has of its own
 * @returns {new () => Record<string, unknown>}
 */
const makeGlobalConstructor = (shared) => {
  const constants = {};
  setGlobalObjectConstantProperties(constants);
  setGlobalObjectSymbolUnscopables(constants);
  // Without a name of its own, V8 calls what it makes an `Object`.
  const assignments = Object.keys(shared).map((name, at) => `this[${JSON.stringify(name)}] = values[${at}];`);
  const Global = FERAL_FUNCTION('values', `return function () { ${assignments.join('')} };`)(Object.values(shared));
  Global.prototype = Object.freeze(constants);
  return Global;
};

/**
 * @param {any} Compartment  SES's, which says what is permitted
 * @param {Record<string, unknown>} globals  what each of them gets beside that
 */
export const makeCompartments = (Compartment, globals) => {
  const permitted = new Compartment().globalThis;
  const names = Object.getOwnPropertyNames(permitted).filter((name) => !NOT_SHARED.has(name));
  /** Of the program that runs. @type {any} */
  let current;
  /** @type {Record<string, unknown>} */
  const evaluators = {};
  setGlobalObjectEvaluators(evaluators, (/** @type {string} */ source) => evaluateIn(current, source), () => {});
  const Global = makeGlobalConstructor({
    ...Object.fromEntries(names.map((name) => [name, permitted[name]])),
    ...globals,
    globalThis: undefined,
    eval: evaluators.eval,
    Function: evaluators.Function,
  });

  const make = () => {
    const globalThis = new Global();
    globalThis.globalThis = globalThis;
    /**
     * A gate is called when the whole text is compiled, and before anything of it runs. It may wait; if it throws,
     * nothing does.
     *
     * @param {string} source @param {() => void} [gate] @returns {any}
     */
    const evaluate = (source, gate) => evaluateIn(globalThis, rejectSomeDirectEvalExpressions(source), gate);
    return Object.freeze({ globalThis, evaluate });
  };
  /** @type {ReturnType<typeof make> | undefined} */
  let next = make();
  return Object.freeze({
    /** A compartment that no program ran in, for the program that runs now or may run next; an earlier one has ended. */
    take: () => {
      const taken = next ?? make();
      next = undefined;
      current = taken.globalThis;
      return taken;
    },
    /** Makes the next one, and forgets the one that was taken. */
    prepare: () => {
      current = undefined;
      next ??= make();
    },
  });
};
