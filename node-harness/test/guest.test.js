// @ts-check
/** One execution in the guest, with its frames to and from the supervisor. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { closePerimeter } from '../src/guest/perimeter.js';
import { makeCompartments } from '../src/guest/compartments.js';
import { makeConsole } from '../src/guest/console.js';
import { makeEndowments } from '../src/guest/endowments.js';
import { makeExecution } from '../src/guest/execution.js';
import { makeSharedGlobals } from '../src/guest/globals.js';
import { makeTimers } from '../src/guest/timers.js';
import { makePrinter } from '../src/shared/powers.js';

const perimeter = closePerimeter();
const endowments = makeEndowments();
const printing = makeConsole(makePrinter);
const timers = makeTimers();
const globals = { ...makeSharedGlobals(perimeter), ...timers.globals, console: printing.console };
const compartments = makeCompartments(perimeter.Compartment, globals);
const [{ execute }] = JSON.parse(
  readFileSync(new URL('../../tests/fixtures/protocol/to-guest.json', import.meta.url), 'utf8'),
);

/**
 * Runs a body, answers its calls and wakes it; resolves with all messages once the program has ended.
 *
 * @param {string} body
 * @param {(call: { name: string, params: any }) => unknown} [answer]
 * @param {(execution: ReturnType<typeof makeExecution>) => unknown} [start]
 * @returns {Promise<any[]>}
 */
const run = (body, answer = () => null, start = (execution) => execution.start()) =>
  new Promise((resolve) => {
    /** @type {any[]} */
    const messages = [];
    /** @param {any} call */
    const answered = (call) => ({ return: { executionId: call.executionId, callId: call.callId, value: answer(call) } });
    const send = (/** @type {string} */ json) => {
      const message = JSON.parse(json);
      messages.push(message);
      if (message.call) {
        setImmediate(() => execution.receive(answered(message.call)));
      } else if (message.wait) {
        setTimeout(() => execution.receive({ wake: { executionId: message.wait.executionId } }), message.wait.ms);
      }
    };
    const request = { ...execute, entry: 'call', linesBefore: 1, source: `(async function () {\n${body}\n})` };
    const channel = { send, ask: (/** @type {string} */ json) => answered(JSON.parse(json).call) };
    const execution = makeExecution({ channel, endowments, printing, timers }, compartments.take(), request);
    const turn = () => {
      if (execution.hasEnded()) {
        execution.sendIdle();
        compartments.prepare();
        return resolve(messages);
      }
      if (!execution.runTimer()) {
        execution.waitForTimers();
      }
      setImmediate(turn);
    };
    start(execution);
    setImmediate(turn);
  });

test('a program ends with exactly one outcome and then idle', async () => {
  const frames = await run('setTimeout(() => { throw new Error("late") }, 60000); return (await GetRates({ day: 1 })) + 1', () => 41);
  assert.deepEqual(frames.map((frame) => Object.keys(frame)[0]), ['call', 'wait', 'completed', 'idle']);
  assert.deepEqual(frames[2], { completed: { executionId: execute.executionId, resultType: 'number', value: 42 } });
});

test('a function gives a promise, and its sync the value', async () => {
  const frames = await run('return [GetRates.sync({ day: 1 }).length, GetRates.sync.name, await GetRates()]', () => 'abc');
  assert.deepEqual(frames.at(-2).completed.value, [3, 'GetRates', 'abc']);
});

test('nothing of Node is within reach of a program', async () => {
  for (const name of ['process', 'require', 'fetch', 'Buffer', 'global', 'WebAssembly', 'setImmediate']) {
    const [frame] = await run(`return typeof ${name}`);
    assert.equal(frame.completed.value, 'undefined', name);
  }
});

test('the ways out through constructors lead nowhere', async () => {
  const escapes = [
    'return typeof (() => {}).constructor("return process")()',
    'return typeof GetRates.constructor("return process")()',
    'return typeof console.log.constructor("return process")()',
    'return typeof Date.constructor("return process")()',
    'return typeof new URL("http://a").constructor.constructor("return process")()',
    'return typeof (async () => {}).constructor("return process")',
  ];
  for (const escape of escapes) {
    const frames = await run(escape);
    assert.notEqual(frames[0].completed?.value, 'object', escape);
  }
});

test('what all executions share cannot be changed', async () => {
  for (const target of ['Date', 'Math', 'Intl', 'URL.prototype', 'TextEncoder', 'Object.prototype', 'GetRates', 'console', 'structuredClone']) {
    const frames = await run(`try { ${target}.left = 1 } catch {} return ${target}.left === undefined`);
    assert.equal(frames[0].completed.value, true, target);
  }
});

test('a thrown value of any kind is described', async () => {
  const cases = [
    ['throw "text"', 'text'],
    ['throw null', 'null'],
    ['throw { get message() { throw 1 } }', 'an object'],
    ['throw { status: 404 }', '{"status":404}'],
    ['throw Symbol("s")', 'a symbol'],
  ];
  for (const [body, message] of cases) {
    const [frame] = await run(body);
    assert.equal(frame.threw.error.message, message, body);
  }
});

test('what is announced starts when it is confirmed', async () => {
  let asked = 0;
  const body = 'ran = [typeof ran, input.day, region]; console.log(ran); return [ran, await GetRates({})]; var ran';
  const frames = await run(body, () => 1, (execution) => {
    const isStarted = execution.startIf(() => {
      asked += 1;
      return true;
    });
    assert.ok(isStarted && !execution.hasEnded());
  });
  assert.equal(asked, 1);
  assert.deepEqual(frames, await run(body, () => 1));
  assert.deepEqual(frames.at(-2).completed.value, [['undefined', '2026-11-21', ['eu']], 1]);
});

test('what is announced and not confirmed is over, and says nothing', async () => {
  const bodies = ['console.log(1)', '}); console.log("ran"); GetRates({}); (function () {'];
  for (const body of bodies) {
    const frames = await run(body, () => null, (execution) => assert.ok(!execution.startIf(() => false)));
    assert.deepEqual(frames.map((frame) => Object.keys(frame)[0]), ['idle'], body);
  }
  const next = await run('console.log("next"); return await GetRates({})', () => 1);
  assert.deepEqual(next.map((frame) => Object.keys(frame)[0]), ['log', 'call', 'completed', 'idle']);
});

test('nobody is asked of a text that is no program', async () => {
  const frames = await run('return ]', () => null, (execution) => assert.ok(!execution.startIf(() => assert.fail('asked'))));
  assert.deepEqual(frames.map((frame) => Object.keys(frame)[0]), ['idle']);
});

test('a program that has ended makes no timer and no call', async () => {
  const left = `(async () => {
    for (let turn = 0; turn < 50; turn += 1) await null;
    try { setTimeout(() => GetRates({}), 0) } catch {}
    GetRates({}).catch(() => {});
    console.log('late');
  })(); return typeof AbortSignal.timeout`;
  const frames = await run(left);
  assert.deepEqual(frames.map((frame) => Object.keys(frame)[0]), ['completed', 'idle']);
  assert.equal(frames[0].completed.value, 'undefined');
});

test('timers end in their order, once or again, until they are cleared', async () => {
  const body = `
    const seen = [];
    const note = (text) => () => void seen.push(text);
    setTimeout(note('late'), 30);
    setTimeout(note('first'), 5);
    const never = setTimeout(note('never'), 8);
    setTimeout(() => clearTimeout(never), 5);
    let ticks = 0;
    const every = setInterval(() => { ticks += 1; if (ticks === 3) clearInterval(every) }, 2);
    setTimeout((a, b) => seen.push(a + b), 'none', 'argu', 'ments');
    await new Promise((go) => setTimeout(go, 60));
    return [seen, ticks]`;
  const frames = await run(body);
  assert.deepEqual(frames.at(-2).completed.value, [['arguments', 'first', 'late'], 3]);
});

test('what a timer leaves to microtasks runs before the next timer', async () => {
  const body = `
    const seen = [];
    setTimeout(() => { seen.push(1); Promise.resolve().then(() => seen.push(2)) }, 1);
    setTimeout(() => seen.push(3), 1);
    await new Promise((go) => setTimeout(go, 20));
    return seen`;
  assert.deepEqual((await run(body)).at(-2).completed.value, [1, 2, 3]);
});
