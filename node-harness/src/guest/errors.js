// @ts-check
/**
 * Describes what a program threw: name, message, and the place in the submitted source. Only the
 * program's own stack frames are shown.
 */
import { text } from './json.js';

/** The name under which V8 knows the program; the supervisor's analyzer uses the same. */
export const SOURCE_NAME = 'program.js';

/**
 * How the text that runs differs from the one that was submitted.
 *
 * @typedef {{ linesBefore: number, shifts: import('../shared/protocol.js').Shift[] }} Rewriting
 */

const FRAMES_MAX = 10;
const MESSAGE_CHARS_MAX = 4000;

/**
 * @param {string} stack
 * @param {Rewriting} rewriting
 */
const ownFrames = (stack, { linesBefore, shifts }) => {
  const frames = [];
  for (const line of stack.split('\n')) {
    const found = /^\s*at (?:(.*?) \()?(?:.*, )?program\.js:(\d+):(\d+)\)?$/.exec(line);
    if (found && frames.length < FRAMES_MAX) {
      const line = Number(found[2]) - linesBefore;
      const moved = shifts.filter((shift) => shift.line === line && shift.column <= Number(found[3]));
      const place = { line, column: moved.reduce((column, shift) => column - shift.by, Number(found[3])) };
      const name = found[1] && !found[1].startsWith('eval') ? found[1].replace(/^(async )?(Object|Proxy)\./, '$1') : '';
      frames.push({ ...place, name });
    }
  }
  return frames.filter((frame) => frame.line > 0);
};

/**
 * @param {unknown} thrown
 * @param {Rewriting} rewriting
 * @returns {import('../shared/protocol.js').ErrorDetails}
 */
export const describeError = (thrown, rewriting) => {
  if (typeof thrown !== 'object' || thrown === null) {
    const message = typeof thrown === 'symbol' || typeof thrown === 'function' ? `a ${typeof thrown}` : `${thrown}`;
    return { name: 'Error', message: message.toWellFormed().slice(0, MESSAGE_CHARS_MAX), hint: 'The program threw a value that is not an Error.' };
  }
  const name = text(thrown, 'name') || 'Error';
  const message = text(thrown, 'message').slice(0, MESSAGE_CHARS_MAX);
  const frames = ownFrames(text(thrown, 'stack'), rewriting);
  const place = frames[0];
  /** @type {import('../shared/protocol.js').ErrorDetails} */
  const details = { name, message };
  const code = text(thrown, 'code');
  if (code) {
    details.code = code;
  }
  if (place) {
    details.line = place.line;
    details.column = place.column;
    const shown = frames.map((frame) => `    at ${frame.name || '<program>'} (line ${frame.line}, column ${frame.column})`);
    details.stack = [`${name}: ${message}`, ...shown].join('\n').toWellFormed();
  }
  return details;
};
