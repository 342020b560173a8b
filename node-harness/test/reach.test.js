// @ts-check
/** Whatever a program can reach, and would share with the next one, is frozen. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closePerimeter } from '../src/guest/perimeter.js';
import { makeConsole } from '../src/guest/console.js';
import { makeEndowments } from '../src/guest/endowments.js';
import { makeSharedGlobals } from '../src/guest/globals.js';
import { makeTimers } from '../src/guest/timers.js';
import { makePrinter } from '../src/shared/powers.js';

const sharedGlobals = makeSharedGlobals(closePerimeter());
const endowments = makeEndowments();
const printing = makeConsole(makePrinter);
const timers = makeTimers();
const budgets = { apiCallsMax: 1e6, apiCallsConcurrentMax: 1e6, paramsBytesMax: 100, resultBytesMax: 100, logEntriesMax: 5, logCharsMax: 100 };

/** What one execution is given. */
const given = () => ({
  ...sharedGlobals,
  ...timers.globals,
  GetRates: endowments.functionOf('GetRates'),
  console: printing.console,
});

const freshArguments = () => [[], ['a=1'], ['http://a/?b=1'], ['*'], ['bad', {}], [() => 1], [[1]], [new Uint8Array(2)], [{}], ['en'], [Symbol('s')]];

/** Every object that can be got at by properties, symbols, prototypes, calls, and what these throw. */
const reach = () => {
  /** @type {Map<object, string>} */
  const found = new Map();
  /** @param {any} value @param {string} path @param {number} depth */
  const visit = (value, path, depth) => {
    if ((typeof value !== 'object' && typeof value !== 'function') || value === null || found.has(value)) {
      return;
    }
    found.set(value, path);
    visit(Object.getPrototypeOf(value), `${path}.__proto__`, depth);
    if (depth === 0) {
      return;
    }
    /** @param {() => unknown} act @param {string} how */
    const attempt = (act, how) => {
      try {
        const result = act();
        if (result instanceof Promise) {
          result.catch(() => {});
        }
        visit(result, `${path}${how}`, depth - 1);
      } catch (thrown) {
        visit(thrown, `${path}${how} threw`, depth - 1);
      }
    };
    for (const key of Reflect.ownKeys(value)) {
      attempt(() => value[key], `.${String(key)}`);
    }
    for (const values of typeof value === 'function' ? freshArguments() : []) {
      attempt(() => Reflect.construct(value, values), `(new ${values.map(String)})`.slice(0, 20));
      attempt(() => Reflect.apply(value, undefined, values), '()');
    }
    for (let kind = Object.getPrototypeOf(value); kind && typeof value === 'object'; kind = Object.getPrototypeOf(kind)) {
      for (const key of Reflect.ownKeys(kind)) {
        attempt(() => (typeof value[key] === 'function' ? value[key]() : value[key]), `.${String(key)}()`);
      }
    }
  };
  endowments.begin({ send: () => {}, ask: () => ({ return: { executionId: '', callId: 1, value: {} } }) }, budgets);
  printing.begin(() => {}, budgets);
  timers.begin(() => {});
  for (const [name, value] of Object.entries(given())) {
    visit(value, name, 4);
  }
  timers.end();
  return found;
};

test('nothing that two executions share can be changed', () => {
  const first = reach();
  const shared = [...reach()].filter(([value]) => first.has(value));
  assert.ok(shared.length > 300, `${shared.length} shared objects were found`);
  const open = shared.filter(([value]) => !Object.isFrozen(value));
  assert.deepEqual(open.map(([, path]) => path), []);
});

test('what Node throws is an error of the realm', () => {
  const { URL, TextDecoder, atob, structuredClone } = /** @type {any} */ (sharedGlobals);
  for (const act of [() => new URL('bad'), () => new TextDecoder('bad'), () => atob('*'), () => structuredClone(() => 1)]) {
    assert.throws(act, (error) => [Error.prototype, TypeError.prototype, RangeError.prototype].includes(Object.getPrototypeOf(error)));
  }
});
