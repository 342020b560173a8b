// @ts-check
/**
 * Freezes functions of one execution, and the record that holds them. What `harden` walks through
 * beyond that is frozen already: arrow functions have no prototype, and all share the realm's.
 *
 * @template {Record<string, Function>} T
 * @param {T} functions
 * @returns {Readonly<T>}
 */
export const frozen = (functions) => {
  for (const name of Object.keys(functions)) {
    Object.freeze(functions[name]);
  }
  return Object.freeze(functions);
};
