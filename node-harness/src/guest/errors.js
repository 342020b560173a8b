// @ts-check
/**
 * Describes what a program threw: name, message, and the place in the submitted source. Only the
 * program's own stack frames are shown.
 */
import { text } from './json.js';

/** The name under which V8 knows the program; the supervisor's analyzer uses the same. */
export const SOURCE_NAME = 'program.js';

const FRAMES_MAX = 10;
const MESSAGE_CHARS_MAX = 4000;

/** Where programs go looking for what this guest does not have, and what to do instead. */
const ABSENT = Object.freeze({
  fetch: 'There is no network here; call one of the functions instead.',
  require: 'Modules cannot be loaded; everything that is available is already defined.',
  process: 'There is no process object.',
  Buffer: 'Use Uint8Array, TextEncoder, TextDecoder, atob and btoa.',
  fs: 'There is no file system.',
  XMLHttpRequest: 'There is no network here; call one of the functions instead.',
  window: 'This is not a browser; use globalThis.',
  document: 'This is not a browser.',
});

/**
 * @param {string} stack
 * @param {number} linesBefore  lines that precede the submitted source
 */
const ownFrames = (stack, linesBefore) => {
  const frames = [];
  for (const line of stack.split('\n')) {
    const found = /^\s*at (?:(.*?) \()?(?:.*, )?program\.js:(\d+):(\d+)\)?$/.exec(line);
    if (found && frames.length < FRAMES_MAX) {
      const place = { line: Number(found[2]) - linesBefore, column: Number(found[3]) };
      const name = found[1] && !found[1].startsWith('eval') ? found[1].replace(/^(async )?(Object|Proxy)\./, '$1') : '';
      frames.push({ ...place, name });
    }
  }
  return frames.filter((frame) => frame.line > 0);
};

/** @param {string[]} functions */
const listed = (functions) => {
  const shown = functions.slice(0, 20).join(', ');
  return functions.length > 20 ? `${shown} and ${functions.length - 20} more` : shown;
};

/**
 * What to say about a call of a name that the program does not declare and that stands for nothing.
 * SES gives such a name the value undefined, so calling it is a TypeError.
 *
 * @param {string} name
 * @param {string[]} functions
 */
const unknownName = (name, functions) => {
  const available = `Functions of this environment: ${listed(functions)}.`;
  const absent = /** @type {Record<string, string>} */ (ABSENT)[name];
  return absent === undefined
    ? { message: `${name} is not a function of this environment`, code: 'api_not_provisioned', hint: available }
    : { message: `${name} is not available`, code: 'not_available', hint: `${absent} ${available}` };
};

/**
 * @param {unknown} thrown
 * @param {{ linesBefore: number, unboundCalls: string[], functions: string[] }} program
 * @returns {import('../shared/protocol.js').ErrorDetails}
 */
export const describeError = (thrown, { linesBefore, unboundCalls, functions }) => {
  if (typeof thrown !== 'object' || thrown === null) {
    const message = typeof thrown === 'symbol' || typeof thrown === 'function' ? `a ${typeof thrown}` : `${thrown}`;
    return { name: 'Error', message: message.toWellFormed().slice(0, MESSAGE_CHARS_MAX), hint: 'The program threw a value that is not an Error.' };
  }
  const name = text(thrown, 'name') || 'Error';
  const message = text(thrown, 'message').slice(0, MESSAGE_CHARS_MAX);
  const frames = ownFrames(text(thrown, 'stack'), linesBefore);
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
  const called = name === 'TypeError' && /^([\w$]+) is not a function$/.exec(message);
  return called && unboundCalls.includes(called[1]) ? { ...details, ...unknownName(called[1], functions) } : details;
};
