// @ts-check
/** `URL`, `URLSearchParams`, `TextEncoder` and `TextDecoder`: the realm's own classes around those of Node. */
import { ask } from './foreign.js';

const Node = { URL, URLSearchParams, TextEncoder, TextDecoder };

/**
 * Gives a class accessors that read and write what it holds.
 *
 * @param {object} prototype
 * @param {string[]} names
 * @param {(self: any) => any} held
 * @param {boolean} writable
 */
const defineAccessors = (prototype, names, held, writable) => {
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

class OwnURLSearchParams {
  #held;

  /** @param {any} [init] */
  constructor(init) {
    const plain = init !== null && typeof init === 'object' && #held in init ? `${init}` : init;
    this.#held = ask(() => (plain instanceof Node.URLSearchParams ? plain : new Node.URLSearchParams(plain)));
  }

  /** @param {any} name @param {any} value */
  append(name, value) {
    ask(() => this.#held.append(`${name}`, `${value}`));
  }

  /** @param {any} name @param {any} [value] */
  delete(name, value) {
    ask(() => (value === undefined ? this.#held.delete(`${name}`) : this.#held.delete(`${name}`, `${value}`)));
  }

  /** @param {any} name */
  get(name) {
    return ask(() => this.#held.get(`${name}`));
  }

  /** @param {any} name */
  getAll(name) {
    return ask(() => this.#held.getAll(`${name}`));
  }

  /** @param {any} name @param {any} [value] */
  has(name, value) {
    return ask(() => (value === undefined ? this.#held.has(`${name}`) : this.#held.has(`${name}`, `${value}`)));
  }

  /** @param {any} name @param {any} value */
  set(name, value) {
    ask(() => this.#held.set(`${name}`, `${value}`));
  }

  sort() {
    this.#held.sort();
  }

  toString() {
    return this.#held.toString();
  }

  get size() {
    return this.#held.size;
  }

  /** @param {Function} callback @param {any} [self] */
  forEach(callback, self) {
    for (const [name, value] of this) {
      Reflect.apply(callback, self, [value, name, this]);
    }
  }

  *entries() {
    yield* Array.from(this.#held.entries());
  }

  *keys() {
    yield* Array.from(this.#held.keys());
  }

  *values() {
    yield* Array.from(this.#held.values());
  }

  [Symbol.iterator]() {
    return this.entries();
  }

  get [Symbol.toStringTag]() {
    return 'URLSearchParams';
  }
}

class OwnURL {
  #held;
  /** @type {OwnURLSearchParams | undefined} */
  #params;

  /** @param {any} url @param {any} [base] */
  constructor(url, base) {
    this.#held = ask(() => (base === undefined ? new Node.URL(`${url}`) : new Node.URL(`${url}`, `${base}`)));
  }

  /** @param {any} url @param {any} [base] */
  static canParse(url, base) {
    return ask(() => (base === undefined ? Node.URL.canParse(`${url}`) : Node.URL.canParse(`${url}`, `${base}`)));
  }

  /** @param {any} url @param {any} [base] */
  static parse(url, base) {
    return OwnURL.canParse(url, base) ? new OwnURL(url, base) : null;
  }

  /** The text of a URL, or nothing if it is none. @param {object} value @returns {string | undefined} */
  static textOf(value) {
    return #held in value ? value.#held.href : undefined;
  }

  get searchParams() {
    this.#params ??= new OwnURLSearchParams(this.#held.searchParams);
    return this.#params;
  }

  toString() {
    return this.#held.href;
  }

  toJSON() {
    return this.#held.href;
  }

  get [Symbol.toStringTag]() {
    return 'URL';
  }

  static {
    const writable = ['href', 'protocol', 'username', 'password', 'host', 'hostname', 'port', 'pathname', 'search', 'hash'];
    defineAccessors(OwnURL.prototype, writable, (url) => url.#held, true);
    defineAccessors(OwnURL.prototype, ['origin'], (url) => url.#held, false);
  }
}

class OwnTextEncoder {
  #held = new Node.TextEncoder();

  get encoding() {
    return this.#held.encoding;
  }

  /** @param {any} [text] */
  encode(text = '') {
    return ask(() => this.#held.encode(`${text}`));
  }

  /** @param {any} text @param {any} target */
  encodeInto(text, target) {
    return ask(() => this.#held.encodeInto(`${text}`, target));
  }

  get [Symbol.toStringTag]() {
    return 'TextEncoder';
  }
}

class OwnTextDecoder {
  #held;

  /** @param {any} [label] @param {any} [options] */
  constructor(label = 'utf-8', options) {
    const { fatal = false, ignoreBOM = false } = options ?? {};
    this.#held = ask(() => new Node.TextDecoder(`${label}`, { fatal: Boolean(fatal), ignoreBOM: Boolean(ignoreBOM) }));
  }

  /** @param {any} [input] @param {any} [options] */
  decode(input, options) {
    const stream = Boolean(options?.stream);
    return ask(() => this.#held.decode(input, { stream }));
  }

  get [Symbol.toStringTag]() {
    return 'TextDecoder';
  }

  static {
    defineAccessors(OwnTextDecoder.prototype, ['encoding', 'fatal', 'ignoreBOM'], (decoder) => decoder.#held, false);
  }
}

/** @template {Function} T @param {T} kind @param {string} name @returns {T} */
const named = (kind, name) => Object.defineProperty(kind, 'name', { value: name });

/** The text of a program's URL, or nothing. */
export const { textOf: textOfUrl } = OwnURL;
Reflect.deleteProperty(OwnURL, 'textOf');

export const web = {
  URL: named(OwnURL, 'URL'),
  URLSearchParams: named(OwnURLSearchParams, 'URLSearchParams'),
  TextEncoder: named(OwnTextEncoder, 'TextEncoder'),
  TextDecoder: named(OwnTextDecoder, 'TextDecoder'),
};
