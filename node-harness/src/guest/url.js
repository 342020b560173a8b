// @ts-check
/** `URL` and `URLSearchParams`: the realm's own classes around those of Node. */
import { ask, defineAccessors, named } from './foreign.js';

const Node = { URL, URLSearchParams };

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

/** The text of a program's URL, or nothing. */
export const { textOf: textOfUrl } = OwnURL;
Reflect.deleteProperty(OwnURL, 'textOf');

export const urls = { URL: named(OwnURL, 'URL'), URLSearchParams: named(OwnURLSearchParams, 'URLSearchParams') };
