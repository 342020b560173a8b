// @ts-check
/**
 * Length-prefixed JSON over a stream: four bytes of big-endian length, then UTF-8.
 * The supervisor bounds what it reads; here only the framing itself is checked, because the
 * supervisor is trusted.
 */

/** @param {string} json */
export const frameOf = (json) => {
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
