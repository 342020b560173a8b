// @ts-check
/**
 * Length-prefixed JSON over a stream: four bytes of big-endian length, then UTF-8.
 * The supervisor bounds what it reads; here only the framing itself is checked, because the
 * supervisor is trusted.
 */

/** @param {string} json */
const frameOf = (json) => {
  const length = Buffer.byteLength(json);
  const frame = Buffer.allocUnsafe(4 + length);
  frame.writeUInt32BE(length, 0);
  frame.write(json, 4);
  return frame;
};

/**
 * @param {{
 *   write: (bytes: Buffer) => void,
 *   onData: (listener: (chunk: Buffer) => void) => void,
 * }} powers
 * @param {(message: any) => void} receive  called once per message, in order
 * @returns {{ send: (message: unknown) => void, sendText: (json: string) => void }}
 */
export const makeFrames = ({ write, onData }, receive) => {
  /** @type {Buffer} */
  let pending = Buffer.alloc(0);

  onData((chunk) => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    while (pending.length >= 4) {
      const end = 4 + pending.readUInt32BE(0);
      if (pending.length < end) {
        return;
      }
      const message = JSON.parse(pending.toString('utf8', 4, end));
      pending = pending.subarray(end);
      receive(message);
    }
  });

  /** @param {string} json */
  const sendText = (json) => write(frameOf(json));

  return Object.freeze({ send: (message) => sendText(JSON.stringify(message)), sendText });
};

/**
 * Sends a message and blocks until its answer is there. A program can exhaust its stack in the midst
 * of that, so what was begun and not ended is remembered: nothing is sent any more then.
 *
 * @param {{ write: (bytes: Buffer) => void, read: (length: number) => Buffer }} powers
 */
export const makeExchange = ({ write, read }) => {
  let open = false;
  return Object.freeze({
    /** @param {string} json @param {(answer: any) => boolean} isAnswer */
    ask: (json, isAnswer) => {
      if (open) {
        throw new Error('an earlier call was cut short: no more can be made');
      }
      const frame = frameOf(json);
      open = true;
      write(frame);
      const answer = JSON.parse(read(read(4).readUInt32BE(0)).toString('utf8'));
      if (!isAnswer(answer)) {
        throw new Error('the answer to another call has come');
      }
      open = false;
      return answer;
    },
    /** Whether a question was left without its answer. */
    isBroken: () => open,
  });
};
