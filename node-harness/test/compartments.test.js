// @ts-check
/** Compartments made of SES's parts are what SES's own are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getHeapSpaceStatistics } from 'node:v8';
import { makeCompartments } from '../src/guest/compartments.js';
import { closePerimeter } from '../src/guest/perimeter.js';

const { Compartment } = closePerimeter();
const GIVEN = { given: 1, Math: Object.freeze({ of: 'ours' }) };
const compartments = makeCompartments(Compartment, GIVEN);
const sesCompartment = () => {
  const compartment = new Compartment();
  Object.assign(compartment.globalThis, GIVEN);
  return compartment;
};

/** Names of a global object, with what each is. @param {object} globalThis */
const contents = (globalThis) => {
  /** @type {Record<string, object>} */
  const found = {};
  for (const [name, { value, writable, configurable }] of Object.entries(Object.getOwnPropertyDescriptors(globalThis))) {
    // Each has its own of these; and a program needs no other compartments.
    if (!['globalThis', 'eval', 'Function', 'Compartment'].includes(name)) {
      found[name] = { value, writable, configurable };
    }
  }
  return found;
};

test('they have what SES permits, and no Compartment', () => {
  const { globalThis } = compartments.take();
  assert.deepEqual(contents(globalThis), contents(sesCompartment().globalThis));
  assert.equal(globalThis.globalThis, globalThis);
  assert.ok(!('Compartment' in globalThis));
  assert.equal(Object.getPrototypeOf(globalThis), Object.prototype);
});

test('a program means the same in them', () => {
  /** @param {{ evaluate: (source: string) => unknown }} compartment @param {string} source */
  const outcome = (compartment, source) => {
    try {
      return compartment.evaluate(source);
    } catch (error) {
      return `${error}`;
    }
  };
  for (const source of [
    'given + [typeof Math.of, typeof Float64Array, typeof process, typeof require, typeof globalThis.Date]',
    'this === globalThis && globalThis.globalThis === globalThis',
    'given = 2; globalThis.given',
    'unknown = 1',
    'typeof unknown',
    'unknown',
    'undefined = 1',
    'Infinity = 1',
    '(function () { return this })()',
    'var kept = 1; let own = 2; function named() {} typeof globalThis.kept + typeof globalThis.named + own',
    'globalThis.later = 3; later',
    'delete globalThis.given',
    '(0, eval)("given + 1")',
    'eval ("given")',
    'new Function("a", "return [a, this === undefined, given]")(1).join()',
    'Function("return this")() === undefined',
    '(() => {}).constructor("return 1")',
    'Object.getPrototypeOf(async () => {}).constructor("return 1")',
    '[].constructor.prototype.left = 1',
    'Object.prototype.left = 1',
    'import("fs")',
    '1 <!-- a',
    '1 --> a',
    'with ({}) {}',
    'arguments[0]',
    'evalScope',
    'scopeTerminator',
    'globalThis[Symbol.unscopables] = { given: true }',
    'let = ;',
  ]) {
    const [own, ses] = [outcome(compartments.take(), source), outcome(sesCompartment(), source)];
    assert.deepEqual(own, ses, source);
  }
});

test('nothing is left of a program that has ended', () => {
  const old = () => getHeapSpaceStatistics().find(({ space_name: name }) => name === 'old_space')?.space_used_size ?? NaN;
  const run = () => {
    // Far less than V8 lets become old before it walks its whole heap.
    for (let time = 0; time < 200; time += 1) {
      compartments.take().evaluate('globalThis.own = new Array(1000).fill(0)');
      compartments.prepare();
    }
  };
  run();
  const before = old();
  run();
  assert.ok(old() - before < 200 * 1000, `${old() - before} bytes more`);
});
