// @ts-check
/** Framing: messages arrive whole and in order, however the stream cuts them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { makeExchange, makeFrames } from '../src/shared/frames.js';

const fixtures = new URL('../../tests/fixtures/protocol/', import.meta.url);

/** @param {number} size  bytes per chunk */
const sentInChunksOf = (size) => {
  /** @type {Buffer[]} */
  const written = [];
  /** @type {unknown[]} */
  const received = [];
  const sender = makeFrames({ write: (bytes) => void written.push(bytes), onData: () => {} }, () => {});
  const messages = ['to-guest', 'from-guest', 'to-host', 'from-host'].flatMap((name) =>
    JSON.parse(readFileSync(new URL(`${name}.json`, fixtures), 'utf8')),
  );
  messages.forEach(sender.send);
  const bytes = Buffer.concat(written);
  makeFrames(
    {
      write: () => {},
      onData: (listener) => {
        for (let start = 0; start < bytes.length; start += size) {
          listener(bytes.subarray(start, start + size));
        }
      },
    },
    (message) => void received.push(message),
  );
  return { messages, received };
};

test('every fixture arrives whole, whatever the chunks', () => {
  for (const size of [1, 3, 4, 5, 1000, 1_000_000]) {
    const { messages, received } = sentInChunksOf(size);
    assert.deepEqual(received, messages);
  }
});

test('lengths count bytes and not characters', () => {
  /** @type {Buffer[]} */
  const written = [];
  const { send } = makeFrames({ write: (bytes) => void written.push(bytes), onData: () => {} }, () => {});
  send('ü€😀');
  assert.equal(written[0].readUInt32BE(0), Buffer.byteLength('"ü€😀"'));
});

test('an exchange that was cut short sends nothing any more', () => {
  /** @type {Buffer[]} */
  const sent = [];
  let reads = 0;
  const read = (/** @type {number} */ length) => {
    reads += 1;
    if (reads === 2) {
      throw new RangeError('Maximum call stack size exceeded');
    }
    return length === 4 ? Buffer.from([0, 0, 0, 2]) : Buffer.from('{}');
  };
  const exchange = makeExchange({ write: (bytes) => void sent.push(bytes), read });
  assert.throws(() => exchange.ask('{"first":1}', () => true), RangeError);
  assert.ok(exchange.isBroken());
  assert.throws(() => exchange.ask('{"second":2}', () => true), /cut short/);
  assert.equal(sent.length, 1);
  reads = 2;
  const other = makeExchange({ write: () => {}, read });
  assert.throws(() => other.ask('{}', () => false), /another call/);
  assert.ok(other.isBroken());
});
