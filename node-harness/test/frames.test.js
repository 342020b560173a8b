// @ts-check
/** Framing: messages arrive whole and in order, however the stream cuts them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { makeFrames } from '../src/shared/frames.js';

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
