// @ts-check
/** The rebuilding of values as JSON, against values made to confuse it. */
import '../src/guest/perimeter.js';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toJson } from '../src/guest/json.js';

const BYTES_MAX = 10_000;
/** @param {unknown} value */
const rebuilt = (value) => JSON.parse(toJson(value, 'result', BYTES_MAX));

test('what JSON lacks is rebuilt', () => {
  const cases = [
    [undefined, null],
    [NaN, null],
    [-0, 0],
    [12n, '12'],
    [new Date(0), '1970-01-01T00:00:00.000Z'],
    [new Date(NaN), null],
    [new Map([['a', 1]]), { a: 1 }],
    [new Map([[1, 'a']]), [[1, 'a']]],
    [new Set([1, 2]), [1, 2]],
    [new Uint8Array([1, 2]), [1, 2]],
    [new RangeError('x'), { name: 'RangeError', message: 'x' }],
    [{ kept: null, left: undefined }, { kept: null }],
    ['\ud800', '\ufffd'],
    // eslint-disable-next-line no-sparse-arrays
    [[, 1], [null, 1]],
  ];
  for (const [value, expected] of cases) {
    assert.deepEqual(rebuilt(value), expected);
  }
});

test('no method of the value is called', () => {
  const hostile = { toJSON: () => assert.fail('toJSON was called'), toString: () => assert.fail('toString was called') };
  assert.throws(() => rebuilt(hostile), { code: 'not_serialisable' });
  assert.deepEqual(rebuilt({ a: Object.assign(Object.create(null), { b: 1 }) }), { a: { b: 1 } });
});

test('a refusal names the path', () => {
  /** @type {any} */
  const cycle = { list: [{}] };
  cycle.list[0].back = cycle;
  const cases = [
    [{ a: [Symbol('s')] }, 'result.a[0]'],
    [{ 'not a name': () => 1 }, 'result["not a name"]'],
    [cycle, 'result.list[0].back'],
    [[Promise.resolve(1)], 'result[0]'],
  ];
  for (const [value, path] of cases) {
    assert.throws(() => rebuilt(value), (/** @type {Error} */ error) => error.message.startsWith(`${path} `));
  }
});

test('size and depth are bounded before anything is built', () => {
  let deep = {};
  for (let level = 0; level < 200; level += 1) {
    deep = { deep };
  }
  assert.throws(() => rebuilt(deep), { code: 'nesting_too_deep' });
  for (const large of ['x'.repeat(BYTES_MAX), new Array(4e9), new Array(BYTES_MAX).fill(1), { ['k'.repeat(BYTES_MAX)]: 1 }]) {
    assert.throws(() => rebuilt(large), { code: 'result_too_large' });
  }
});

test('a getter or a proxy that throws ends the rebuilding with its own error', () => {
  const thrown = new Error('from inside');
  const getter = { get a() { throw thrown; } };
  const proxy = new Proxy({}, { ownKeys: () => { throw thrown; } });
  for (const value of [getter, proxy]) {
    assert.throws(() => rebuilt(value), thrown);
  }
});
