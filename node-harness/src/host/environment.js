// @ts-check
/**
 * One environment's functions: loads the implementation, initializes it for one agent, and calls
 * its functions. The realm is an ordinary one, because frozen intrinsics break npm packages; the
 * boundary is the process.
 */

/** The prefix under which the supervisor exports the implementation's functions. */
const EXPORT_PREFIX = 'endowment:';

const MESSAGE_CHARS_MAX = 4000;

/** @param {unknown} thrown @returns {import('../shared/protocol.js').ErrorDetails} */
export const describeError = (thrown) => {
  if (!(thrown instanceof Error)) {
    return { name: 'Error', message: String(thrown).toWellFormed().slice(0, MESSAGE_CHARS_MAX) };
  }
  const { name, message, code, cause } = /** @type {Error & { code?: unknown }} */ (thrown);
  // Clients such as fetch say what happened in the cause only.
  const whole = cause instanceof Error && cause.message ? `${message}: ${cause.message}` : String(message);
  const details = { name: String(name).toWellFormed(), message: whole.toWellFormed().slice(0, MESSAGE_CHARS_MAX) };
  return typeof code === 'string' ? { ...details, code: code.toWellFormed() } : details;
};

/** BigInt has no JSON form of its own. @param {string} _key @param {unknown} value */
const replacer = (_key, value) => (typeof value === 'bigint' ? `${value}` : value);

/**
 * @param {{ importFile: (file: string) => Promise<Record<string, any>>, send: (message: import('../shared/protocol.js').FromHost) => void, sendText: (json: string) => void }} powers
 */
export const makeEnvironment = ({ importFile, send, sendText }) => {
  /** @type {Record<string, Function>} */
  let implementation = {};

  /** @param {string} name */
  const found = (name) => {
    const candidate = implementation[name];
    if (typeof candidate !== 'function') {
      throw new Error(`the implementation has no function ${name}`);
    }
    return candidate;
  };

  /** Answers with `reply`, or with what was thrown. @param {number | null} callId @param {() => Promise<void>} step */
  const answer = async (callId, step) => {
    try {
      await step();
    } catch (error) {
      send({ threw: { callId, error: describeError(error) } });
    }
  };

  return Object.freeze({
    /** @param {{ file: string, functions: string[] }} message */
    load: ({ file, functions }) =>
      answer(null, async () => {
        const namespace = await importFile(file);
        const exported = namespace[`${EXPORT_PREFIX}Initialize`] ? namespace : namespace.default;
        for (const name of ['Initialize', 'Deinitialize', ...functions]) {
          implementation[name] = exported[`${EXPORT_PREFIX}${name}`];
          found(name);
        }
        send({ loaded: {} });
      }),
    /** @param {{ agentId: string, backends: Record<string, string> }} message */
    initialize: ({ agentId, backends }) =>
      answer(null, async () => {
        await found('Initialize')(agentId, backends);
        send({ initialized: {} });
      }),
    /** @param {{ callId: number, name: string, params: unknown }} message */
    call: ({ callId, name, params }) =>
      answer(callId, async () => {
        const value = await found(name)(params);
        const json = JSON.stringify(value === undefined ? null : value, replacer);
        if (json === undefined) {
          throw new TypeError(`${name} returned a ${typeof value}, which has no JSON form`);
        }
        sendText(`{"returned":{"callId":${callId},"value":${json}}}`);
      }),
    deinitialize: () =>
      answer(null, async () => {
        await found('Deinitialize')();
        send({ deinitialized: {} });
      }),
  });
};
