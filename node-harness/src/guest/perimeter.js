// @ts-check
/**
 * The perimeter: after this module ran, every intrinsic of the realm is frozen. It is the first
 * import of the guest; what needs the intrinsics as Node made them is captured here, before.
 */
import { loadSes } from '../shared/powers.js';

loadSes();

/** Constructors that SES removes from its permitted intrinsics and that programs use. */
const { Float32Array, Float64Array, Float16Array } = /** @type {any} */ (globalThis);

/** The constructor that V8 asks how a stack is written; programs never see it. It walks the stack once, SES's twice. */
const V8Error = globalThis.Error;

// Every option is written out, so that neither a default nor an environment variable decides.
lockdown({
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

const { Compartment } = /** @type {{ Compartment: any }} */ (/** @type {unknown} */ (globalThis));
export { Compartment, V8Error, Float16Array, Float32Array, Float64Array };
