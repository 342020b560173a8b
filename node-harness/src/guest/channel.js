// @ts-check
/**
 * The guest's end of the protocol: a socket that blocks. A guest that runs nothing waits in one system
 * call, and one whose program wants the value of a call waits for it in the midst of the program.
 */
import { frameOf } from '../shared/frames.js';

/** What most frames fit in; larger ones get a buffer of their own. */
const ROOM_BYTES = 64 * 1024;

/**
 * @param {{ write: (bytes: Buffer) => void, read: (into: Buffer, from: number) => number }} powers
 */
export const makeChannel = ({ write, read }) => {
  let buffer = Buffer.allocUnsafeSlow(ROOM_BYTES);
  let start = 0;
  let end = 0;
  /** Messages that came while a call was waited for. @type {any[]} */
  const early = [];
  let open = false;

  /** Reads until so many bytes are there, from the place where the next frame starts. @param {number} length */
  const fill = (length) => {
    if (start + length > buffer.length) {
      const larger = length > buffer.length ? Buffer.allocUnsafeSlow(length) : buffer;
      end = buffer.copy(larger, 0, start, end);
      start = 0;
      buffer = larger;
    }
    while (end - start < length) {
      end += read(buffer, end);
    }
  };

  const nextFrame = () => {
    fill(4);
    const length = 4 + buffer.readUInt32BE(start);
    fill(length);
    const message = JSON.parse(buffer.toString('utf8', start + 4, start + length));
    start += length;
    if (start === end) {
      start = end = 0;
      buffer = buffer.length > ROOM_BYTES ? Buffer.allocUnsafeSlow(ROOM_BYTES) : buffer;
    }
    return message;
  };

  return Object.freeze({
    /** @param {string} json  one message */
    send: (json) => write(frameOf(json)),
    /** The next message, for which it waits. */
    next: () => early.shift() ?? nextFrame(),
    /**
     * Sends a call and waits for its answer. A program can exhaust its stack in the midst of that, so what
     * was begun and not ended is remembered: nothing is asked any more then.
     *
     * @param {string} json @param {(message: any) => boolean} isAnswer
     */
    ask: (json, isAnswer) => {
      if (open) {
        throw new Error('an earlier call was cut short: no more can be made');
      }
      const frame = frameOf(json);
      open = true;
      write(frame);
      for (;;) {
        const message = nextFrame();
        if (isAnswer(message)) {
          open = false;
          return message;
        }
        early.push(message);
      }
    },
    /** Whether a call was left without its answer. */
    isBroken: () => open,
  });
};
