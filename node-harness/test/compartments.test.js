// @ts-check
/** Compartments made of SES's parts are what SES's own are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getHeapSpaceStatistics, getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
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

/** Names of a global object, and of what stands between it and the realm, with what each is. @param {object} globalThis */
const contents = (globalThis) => {
  /** @type {Record<string, object>} */
  const found = {};
  for (let holder = globalThis; holder !== Object.prototype; holder = Object.getPrototypeOf(holder)) {
    for (const [name, { value, writable, configurable }] of Object.entries(Object.getOwnPropertyDescriptors(holder))) {
      // SES's have others of these; and a program needs no other compartments.
      if (!['globalThis', 'eval', 'Function', 'Compartment'].includes(name)) {
        found[name] = { value, writable, configurable };
      }
    }
  }
  return found;
};

test('they have what SES permits, and no Compartment', () => {
  const { globalThis } = compartments.take();
  assert.deepEqual(contents(globalThis), contents(sesCompartment().globalThis));
  assert.equal(globalThis.globalThis, globalThis);
  assert.ok(!('Compartment' in globalThis));
  assert.ok(Object.isFrozen(Object.getPrototypeOf(globalThis)));
  assert.equal(globalThis.constructor, Object);
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
    'globalThis.NaN = 1',
    'Object.prototype.toString.call(globalThis) + globalThis',
    'Object.keys(eval) + eval.name + eval.length + Function.name + Function.length + (Function.prototype === Object.getPrototypeOf(eval))',
    'eval(1)',
    'new eval("1")',
    'let = ;',
  ]) {
    const [own, ses] = [outcome(compartments.take(), source), outcome(sesCompartment(), source)];
    assert.deepEqual(own, ses, source);
  }
});

test('evaluators evaluate in the program that runs, and no stack is too short to take eval away in time', () => {
  const { globalThis, evaluate } = compartments.take();
  const { found, looks } = evaluate(`
    const own = eval;
    const found = new Set();
    let looks = 0;
    let left = 0;
    const look = () => {
      looks += 1;
      try { (0, eval)('0'); new Function('')(); } catch {}
      found.add(eval === own && (0, eval)('globalThis') === globalThis && Function('return eval')() === own);
    };
    const dive = () => { try { dive(); } catch {} if (left > 0) { left -= 1; try { look(); } catch {} } };
    // Before it is compiled it could not even begin at the end of the stack.
    look();
    for (let time = 0; time < 5; time += 1) { left = 1500; dive(); }
    ({ found, looks })`);
  assert.deepEqual([...found], [true]);
  assert.ok(looks > 5000, `${looks} looks`);
  const next = compartments.take();
  assert.notEqual(next.globalThis, globalThis);
  assert.equal(next.evaluate('(0, eval)("globalThis")'), next.globalThis);
});

test('nothing is kept of a program that has ended', () => {
  compartments.take().evaluate('globalThis.own = new Array(2e6).fill(0.5)');
  compartments.prepare();
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
  assert.ok(getHeapStatistics().used_heap_size < 16e6, `${getHeapStatistics().used_heap_size} bytes`);
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

test('nothing of a text runs before its gate, and nothing at all if that throws', () => {
  const fresh = () => {
    compartments.prepare();
    return compartments.take();
  };
  let asked = 0;
  const open = () => void (asked += 1);
  const closed = () => {
    asked += 1;
    throw new Error('closed');
  };
  assert.equal(fresh().evaluate('(function () { return given + 1 })', open)(), 2);
  assert.equal(asked, 1);

  // What breaks out of its wrapper would run at once.
  const breakouts = [
    '(function () {\n}); globalThis.ran = 1; (function () {\n})',
    '(function () {\n}); { throw globalThis.ran = 1 } (function () {\n})',
    '(function () {\n}, globalThis.ran = 1, class { static { globalThis.ran = 1 } [globalThis.ran = 1]() {} }, function () {\n})',
    '(function () {\n}); var given = globalThis.ran = 1; function gate() {} (function () {\n})',
  ];
  for (const breakout of breakouts) {
    const { globalThis, evaluate } = fresh();
    asked = 0;
    assert.throws(() => evaluate(breakout, closed), /closed/, breakout);
    assert.equal(asked, 1, breakout);
    assert.ok(!('ran' in globalThis), breakout);
  }
});

test('a text behind a gate is what it is otherwise, whatever it is', async () => {
  const cases = [
    '(function () { return [typeof arguments[0], typeof arguments[1], this === undefined] })',
    '(async function () {\nreturn (() => given)()\n})',
    '(function () {\n return ;;; })',
    'no program at all',
    'return',
    `(function () { ${'('.repeat(50_000)} })`,
    '(function () { import("x") })',
    '(function () { eval("1") })',
  ];
  /** @param {string} source @param {() => void} [gate] */
  const outcome = async (source, gate) => {
    compartments.prepare();
    try {
      return [await compartments.take().evaluate(source, gate)()];
    } catch (error) {
      return `${error}`;
    }
  };
  for (const source of cases) {
    assert.deepEqual(await outcome(source, () => {}), await outcome(source), source);
  }
});
