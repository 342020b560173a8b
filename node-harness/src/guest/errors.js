// @ts-check
/**
 * Stacks that show the program alone, at the places of the submitted source, and the description of
 * what a program threw.
 */
import { types } from '../shared/powers.js';
import { text, toJson } from './json.js';

/** The name under which V8 knows the program; the supervisor's analyzer uses the same. */
const SOURCE_NAME = 'program.js';

/** A source with the name that V8 gives its frames. @param {string} source */
export const named = (source) => `${source}\n//# sourceURL=${SOURCE_NAME}`;

/**
 * How the text that runs differs from the one that was submitted.
 *
 * @typedef {{ linesBefore: number, shifts: import('../shared/protocol.js').Shift[] }} Rewriting
 */

const FRAMES_MAX = 10;
const MESSAGE_CHARS_MAX = 4000;
const NAME_CHARS_MAX = 200;
const FRAME_CHARS_MAX = 400;
const OWN_FRAME = /^(?:at )?(?:(.*?) \()?(?:.*, )?program\.js:(\d{1,6}):(\d{1,6})\)?$/;

/** One own frame, at its place in the submitted source. @param {string} frame @param {Rewriting} rewriting */
const ownFrame = (frame, { linesBefore, shifts }) => {
  const found = OWN_FRAME.exec(frame);
  const line = Number(found?.[2]) - linesBefore;
  if (!found || line < 1) {
    return undefined;
  }
  const moved = shifts.filter((shift) => shift.line === line && shift.column <= Number(found[3]));
  const column = moved.reduce((column, shift) => column - shift.by, Number(found[3]));
  const name = (found[1] ?? '').replace(/^(async )?(Object|Proxy)\./, '$1').replace(/^(async )?(\w+\.)?eval$/, '');
  return `    at ${name || '<program>'} (${SOURCE_NAME}:${line}:${column})`;
};

/** Calls of `Name.sync` are the analyzer's; the program wrote `Name`. @param {string} message @param {string[]} functions */
const withoutSync = (message, functions) =>
  message.includes('.sync') ? functions.reduce((text, name) => text.replaceAll(`${name}.sync`, name), message) : message;

/** Without the constructors of the error's own class, as V8 leaves them out. @param {string[]} frames @param {unknown} error */
const withoutConstructors = (frames, error) => {
  const own = `    at new ${text(construct(error), 'name')} (`;
  const last = frames.findIndex((frame) => !frame.startsWith('    at new '));
  const made = frames.slice(0, last < 0 ? frames.length - 1 : last).findLastIndex((frame) => frame.startsWith(own));
  return frames.slice(made + 1);
};

/** @param {any} error */
const construct = (error) => {
  try {
    return error.constructor;
  } catch {
    return undefined;
  }
};

/** What V8 is to write for the stack of an error, given the rewriting of the program that runs. */
export const makeStacks = () => {
  /** @type {Rewriting & { functions: string[] }} */
  let rewriting = { linesBefore: 0, shifts: [], functions: [] };
  return Object.freeze({
    /** @param {Rewriting & { functions: string[] }} current */
    follow: (current) => {
      rewriting = current;
    },
    /** @param {unknown} error @param {unknown[]} sites */
    format: (error, sites) => {
      const frames = sites.map((site) => ownFrame(`${site}`, rewriting)).filter((frame) => frame !== undefined);
      const message = withoutSync(text(error, 'message'), rewriting.functions);
      return [`${text(error, 'name') || 'Error'}: ${message}`, ...withoutConstructors(frames, error).slice(0, FRAMES_MAX)].join('\n');
    },
  });
};

/** What is thrown without a message, unless it is an error that has none. @param {object} thrown */
const shownObject = (thrown) => {
  try {
    return types.isNativeError(thrown) ? '' : toJson(thrown, 'result', MESSAGE_CHARS_MAX);
  } catch {
    return 'an object';
  }
};

/** What to do about an error, by its code or its message. */
const HINTS = /** @type {const} */ ([
  ['not_serialisable', 'Return data alone: call the function, or leave it out.'],
  ['result_too_large', 'Return less: a part, a count or a summary.'],
  ['params_too_large', 'Pass less in one call.'],
  ['nesting_too_deep', 'Flatten the value.'],
  ['api_call_limit', 'Make fewer calls in one program.'],
  [/read only property|is not extensible|Cannot delete property|Cannot redefine property/, 'Built-in objects, and what the environment gives, are frozen: change a copy of your own.'],
  [/^Cannot (?:read|set) properties of (?:undefined|null)|undefined is not iterable/, 'Log the value that stands there, to see what it really holds.'],
]);

/** @param {{ code?: string, message: string }} error */
const hintFor = ({ code, message }) =>
  code === 'not_serialisable' && message.includes(' is a promise')
    ? undefined
    : HINTS.find(([about]) => (typeof about === 'string' ? about === code : about.test(message)))?.[1];

/**
 * @param {unknown} thrown
 * @param {string[]} functions  that the program can use
 * @returns {import('../shared/protocol.js').ErrorDetails}
 */
export const describeError = (thrown, functions) => {
  if (typeof thrown !== 'object' || thrown === null) {
    const message = typeof thrown === 'symbol' || typeof thrown === 'function' ? `a ${typeof thrown}` : `${thrown}`;
    return { name: 'Error', message: message.toWellFormed().slice(0, MESSAGE_CHARS_MAX), hint: 'The program threw a value that is not an Error.' };
  }
  const name = text(thrown, 'name').slice(0, NAME_CHARS_MAX).toWellFormed() || 'Error';
  const message = withoutSync(text(thrown, 'message') || shownObject(thrown), functions).slice(0, MESSAGE_CHARS_MAX).toWellFormed();
  /** @type {import('../shared/protocol.js').ErrorDetails} */
  const details = { name, message };
  const code = text(thrown, 'code').slice(0, NAME_CHARS_MAX).toWellFormed();
  if (code) {
    details.code = code;
  }
  const hint = hintFor(details);
  if (hint) {
    details.hint = hint;
  }
  const lines = text(thrown, 'stack').slice(0, MESSAGE_CHARS_MAX * 4).split('\n').slice(0, 200);
  const frames = lines.filter((line) => line.length <= FRAME_CHARS_MAX && OWN_FRAME.test(line.trim())).slice(0, FRAMES_MAX);
  const place = OWN_FRAME.exec(frames[0]?.trim() ?? '');
  if (place) {
    details.line = Number(place[2]);
    details.column = Number(place[3]);
    details.stack = [`${name}: ${message}`, ...frames].join('\n').toWellFormed();
  }
  return details;
};
