// @ts-check
/** The guest's channel: messages arrive whole and in order, also around a call that is waited for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeChannel } from '../src/guest/channel.js';
import { frameOf } from '../src/shared/frames.js';

/** A channel that receives messages in pieces of so many bytes. @param {unknown[]} messages @param {number} size */
const receiving = (messages, size) => {
  const bytes = Buffer.concat(messages.map((message) => frameOf(JSON.stringify(message))));
  /** @type {Buffer[]} */
  const sent = [];
  let place = 0;
  const read = (/** @type {Buffer} */ into, /** @type {number} */ from) => {
    const count = bytes.copy(into, from, place, Math.min(place + size, bytes.length));
    place += count;
    assert.ok(count > 0, 'nothing is left to be read');
    return count;
  };
  return { channel: makeChannel({ write: (piece) => void sent.push(piece), read }), sent };
};

test('messages arrive whole, whatever the pieces and however large', () => {
  const messages = [{ a: 1 }, { text: 'ü€😀'.repeat(40_000) }, { b: 2 }, { text: 'x'.repeat(65_530) }, { c: 3 }];
  for (const size of [1, 3, 1000, 65_536, 10_000_000]) {
    const { channel } = receiving(messages, size);
    assert.deepEqual(messages.map(() => channel.next()), messages, `${size}`);
  }
});

test('what comes while an answer is waited for comes after it, in its order', () => {
  const { channel, sent } = receiving([{ other: 1 }, { other: 2 }, { answer: 3 }, { other: 4 }], 7);
  assert.deepEqual(channel.ask('{"call":{}}', (message) => 'answer' in message), { answer: 3 });
  assert.deepEqual([channel.next(), channel.next(), channel.next()], [{ other: 1 }, { other: 2 }, { other: 4 }]);
  assert.ok(!channel.isBroken());
  assert.deepEqual(sent, [frameOf('{"call":{}}')]);
});

test('a call that was cut short is the last', () => {
  let reads = 0;
  const read = () => {
    reads += 1;
    throw new RangeError('Maximum call stack size exceeded');
  };
  let writes = 0;
  const channel = makeChannel({ write: () => void (writes += 1), read });
  assert.throws(() => channel.ask('{"first":1}', () => true), RangeError);
  assert.ok(channel.isBroken());
  assert.throws(() => channel.ask('{"second":2}', () => true), /cut short/);
  assert.deepEqual([reads, writes], [1, 1]);
});
