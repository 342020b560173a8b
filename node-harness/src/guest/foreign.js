// @ts-check
/**
 * What stands between a program and the parts of Node that work for it. Node's own objects have
 * classes, prototypes and symbols of Node's, which all programs would share and could change; so none
 * of them is given to a program, and what they throw becomes an error of the realm.
 */

/** The kinds of errors that Node's own are made of. */
const KINDS = [RangeError, TypeError];

/** @param {any} thrown  of Node, or of code of the program that Node ran */
const ofRealm = (thrown) => {
  const isOfNode = thrown instanceof DOMException || (thrown instanceof Error && /^ERR_/.test(String(Reflect.get(thrown, 'code'))));
  if (!isOfNode) {
    return thrown;
  }
  const { name, message, code } = /** @type {any} */ (thrown);
  const Kind = KINDS.find((kind) => thrown instanceof kind) ?? Error;
  const error = new Kind(message);
  if (name !== error.name) {
    Object.defineProperty(error, 'name', { value: name, configurable: true, writable: true });
  }
  return typeof code === 'string' ? Object.assign(error, { code }) : error;
};

/**
 * Asks something of Node.
 *
 * @template T
 * @param {() => T} act
 * @returns {T}
 */
export const ask = (act) => {
  try {
    return act();
  } catch (thrown) {
    throw ofRealm(thrown);
  }
};

/**
 * Gives a class accessors that read and write what it holds.
 *
 * @param {object} prototype
 * @param {string[]} names
 * @param {(self: any) => any} held
 * @param {boolean} writable
 */
export const defineAccessors = (prototype, names, held, writable) => {
  for (const name of names) {
    Object.defineProperty(prototype, name, {
      /** @this {any} */
      get() {
        return held(this)[name];
      },
      set: writable
        ? /** @this {any} @param {unknown} value */ function (value) {
            ask(() => void (held(this)[name] = `${value}`));
          }
        : undefined,
      enumerable: true,
      configurable: true,
    });
  }
};

/** A class of the realm's own under the name of the one that it stands for. @template {Function} T @param {T} kind @param {string} name @returns {T} */
export const named = (kind, name) => Object.defineProperty(kind, 'name', { value: name });
