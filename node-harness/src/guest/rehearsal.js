// @ts-check
/**
 * A supervisor that is played: before guests are forked, the zygote runs some programs of the harness's own with
 * it. What V8 reads, compiles and lays out for them, every guest then has from its start.
 *
 * No random number is drawn and no time is kept: all guests would share it.
 */
import { frameOf } from '../shared/frames.js';

/** So many programs are played: V8 has compiled by then what every program goes through. */
const PLAYS = 20;

/** What programs usually do, as the analyzer hands it on. */
const PROGRAMS = [
  'const answer = await Play({ name: "a", list: [1, 2] }); return answer.list.length;',
  'const both = await Promise.all([Play({ one: 1 }), Play({ two: [{}] })]); console.log("both", both, { map: new Map([[1, 2]]) }); return both;',
  'const value = Play.sync({ text: "b" }); return { text: value.text.toUpperCase(), found: /b+/.exec(value.text) !== null };',
  'try { await Play({ fails: true }); } catch (error) { console.error("failed", error.message, error.stack); } return [3, 1, 2].sort().map((n) => n * 2);',
  'await new Promise((go) => setTimeout(go, 1)); throw new TypeError(`${JSON.stringify({ on: "purpose" })}`);',
];

const BUDGETS = { apiCallsMax: 8, apiCallsConcurrentMax: 8, paramsBytesMax: 4096, resultBytesMax: 4096, logEntriesMax: 8, logCharsMax: 1024 };

/** More than V8 takes for young objects (`--max-semi-space-size`). */
const YOUNG_BYTES = 4 * 1024 * 1024;
const GARBAGE_BYTES = 8 * 1024;

const NOTHING = Buffer.alloc(0);

/**
 * Both ends of the protocol of a guest, as `channel.js` wants it.
 *
 * @param {{ write: (bytes: Buffer) => void, read: (into: Buffer, from: number) => number }} real  what guests will
 *   write and read with; it gets nothing of this, but V8 compiles it
 */
export const makeRehearsal = (real) => {
  /** @type {Buffer[]} */
  const incoming = [];
  let played = 0;
  let over = false;

  /** @param {import('../shared/protocol.js').ToGuest} message */
  const tell = (message) => void incoming.push(frameOf(JSON.stringify(message)));

  const tellNext = () => {
    over = played === PLAYS;
    if (over) {
      return;
    }
    const source = `(async function (input) {\n${PROGRAMS[played % PROGRAMS.length]}\n})`;
    played += 1;
    const context = { __agentId: 'nobody', __env: 'rehearsal' };
    const execute = { executionId: `${played}`, source, entry: /** @type {const} */ ('call'), linesBefore: 1, shifts: [], functions: ['Play'], input: null, context, budgets: BUDGETS };
    // Some come unannounced.
    if (played % 2 === 0) {
      tell({ announce: execute });
      tell({ confirm: { executionId: execute.executionId } });
    } else {
      tell({ execute });
    }
  };

  return Object.freeze({
    start: tellNext,
    /** What the guest says, one frame each time. @param {Buffer} frame */
    write: (frame) => {
      real.write(NOTHING);
      /** @type {any} */
      const { call, wait, idle } = JSON.parse(frame.toString('utf8', 4));
      if (call) {
        const { executionId, callId, params } = call;
        const error = { name: 'Error', message: 'on purpose' };
        tell(params.fails ? { throw: { executionId, callId, error } } : { return: { executionId, callId, value: params } });
      } else if (wait) {
        tell({ wake: { executionId: wait.executionId } });
      } else if (idle) {
        tellNext();
      }
    },
    /** @param {Buffer} into @param {number} from */
    read: (into, from) => {
      real.read(NOTHING, 0);
      const frame = incoming.shift();
      if (frame === undefined) {
        throw new Error('the rehearsal waits for nothing');
      }
      return frame.copy(into, from);
    },
    /** Whether nothing is left to play. */
    isOver: () => over,
  });
};

/**
 * Makes V8 clear the part of its heap for young objects, twice, so that those that live are old afterwards.
 * Otherwise every guest would do so in its first moments, at the cost of a page for each that it writes to.
 */
export const leaveNoGarbage = () => {
  for (let bytes = 0; bytes < 2 * YOUNG_BYTES; bytes += GARBAGE_BYTES) {
    new Array(GARBAGE_BYTES / 8).fill(0);
  }
};
