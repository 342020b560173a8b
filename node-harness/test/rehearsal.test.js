// @ts-check
/** What a zygote plays before it forks guests. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeRehearsal } from '../src/guest/rehearsal.js';
import { frameOf } from '../src/shared/frames.js';

test('a rehearsal goes through what guests read and write with, gives it nothing, and ends', () => {
  const real = { written: 0, read: 0 };
  const rehearsal = makeRehearsal({
    write: (bytes) => {
      assert.equal(bytes.length, 0);
      real.written += 1;
    },
    read: (into, from) => {
      assert.equal(into.length - from, 0);
      real.read += 1;
      return 0;
    },
  });
  const room = Buffer.alloc(64 * 1024);
  rehearsal.start();
  const next = () => JSON.parse(room.toString('utf8', 4, rehearsal.read(room, 0)));
  let programs = 0;
  let announced = 0;
  while (!rehearsal.isOver()) {
    const message = next();
    const { executionId } = message.announce ?? message.execute;
    programs += 1;
    if (message.announce) {
      announced += 1;
      assert.deepEqual(next(), { confirm: { executionId } });
    }
    rehearsal.write(frameOf(JSON.stringify({ idle: { executionId } })));
  }
  assert.ok(0 < announced && announced < programs, `${announced} of ${programs}`);
  assert.deepEqual(real, { written: programs, read: programs + announced });
  assert.throws(() => rehearsal.read(room, 0), /waits for nothing/);
});
