// @ts-check
/**
 * Fresh Compartments: each serves one execution. The next is made while nobody waits for it.
 */
import { SOURCE_NAME } from './errors.js';

/**
 * @param {any} Compartment
 * @param {Record<string, unknown>} globals  what each of them gets
 */
export const makeCompartments = (Compartment, globals) => {
  const make = () => {
    const compartment = new Compartment({ __options__: true, name: SOURCE_NAME });
    // The first evaluation of each compiles its evaluator, which looks at every global that there is.
    compartment.evaluate('0');
    Object.assign(compartment.globalThis, globals);
    return compartment;
  };
  /** @type {ReturnType<typeof make> | undefined} */
  let next = make();
  return Object.freeze({
    /** A Compartment that nothing was evaluated in. */
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
