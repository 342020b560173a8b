// @ts-check
/**
 * The perimeter, in two steps, because a snapshot of V8 can hold intrinsics that are repaired and not such
 * that are frozen: importing this module repairs them, and `closePerimeter` freezes every one. It is the
 * first import of the guest; what needs the realm as Node made it is captured here and in `powers.js`, before.
 */
import '../shared/powers.js';
import 'ses';

/** Constructors that SES removes from its permitted intrinsics and that programs use. */
const { Float32Array, Float64Array, Float16Array: earlyFloat16Array } = /** @type {any} */ (globalThis);

/** The constructor that V8 asks how a stack is written; programs never see it. It walks the stack once, SES's twice. */
const V8Error = globalThis.Error;

// Every option is written out, so that neither a default nor an environment variable decides.
repairIntrinsics({
  // Stacks stay readable: `errors.js` shows a program its own frames and nothing else.
  errorTaming: 'unsafe',
  errorTrapping: 'none',
  reporting: 'none',
  unhandledRejectionTrapping: 'none',
  regExpTaming: 'safe',
  // Locale methods read the language only; a program may format dates and numbers.
  localeTaming: 'unsafe',
  consoleTaming: 'unsafe',
  // Programs assign `toString`, `name` and the like on their own objects.
  overrideTaming: 'severe',
  overrideDebug: [],
  stackFiltering: 'verbose',
  domainTaming: 'safe',
  evalTaming: 'safe-eval',
  legacyRegeneratorRuntimeTaming: 'safe',
  __hardenTaming__: 'safe',
});

/** @param {(error: unknown, sites: unknown[]) => string} format  called when somebody reads a stack */
export const formatStacks = (format) => {
  V8Error.prepareStackTrace = format;
};

/** Freezes the realm; nothing of a program may run before. */
export const closePerimeter = () => {
  // V8 adds its youngest features to a realm that comes from a snapshot, and not to the one of which it was made.
  const Float16Array = earlyFloat16Array ?? /** @type {any} */ (globalThis).Float16Array;
  hardenIntrinsics();
  const { Compartment, harden } = /** @type {{ Compartment: any, harden: <T>(value: T) => T }} */ (/** @type {unknown} */ (globalThis));
  return { Compartment, harden, floats: { Float16Array, Float32Array, Float64Array } };
};

export { V8Error };
