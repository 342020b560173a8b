// @ts-check
/** `TextEncoder` and `TextDecoder`: the realm's own classes around those of Node. */
import { ask, defineAccessors, named } from './foreign.js';

const Node = { TextEncoder, TextDecoder };

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

export const texts = { TextEncoder: named(OwnTextEncoder, 'TextEncoder'), TextDecoder: named(OwnTextDecoder, 'TextDecoder') };
