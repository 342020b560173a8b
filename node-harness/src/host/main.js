// @ts-check
/** The host: one environment's functions, as the supervisor's frames ask for them. */
import { importFile, makePrinter, onUnhandledRejection, openProtocol } from '../shared/powers.js';
import { makeFrames } from '../shared/frames.js';
import { makeEnvironment } from './environment.js';

const LOG_CHARS_MAX = 2000;

const { send, sendText } = makeFrames(openProtocol(), (/** @type {import('../shared/protocol.js').ToHost} */ message) => {
  if ('load' in message) {
    void environment.load(message.load);
  } else if ('initialize' in message) {
    void environment.initialize(message.initialize);
  } else if ('call' in message) {
    void environment.call(message.call);
  } else if ('deinitialize' in message) {
    void environment.deinitialize();
  }
});

const environment = makeEnvironment({ importFile, send, sendText });

for (const level of /** @type {const} */ (['debug', 'info', 'log', 'warn', 'error'])) {
  /** @type {Console | undefined} */
  let printer;
  /** @param {string} text */
  const record = (text) => send({ log: { level, text: text.slice(0, LOG_CHARS_MAX).trimEnd().toWellFormed() } });
  console[level] = (/** @type {unknown[]} */ ...values) => (printer ??= makePrinter(record))[level](...values);
}
onUnhandledRejection((reason) => console.error('Unhandled rejection:', reason));
send({ ready: {} });
