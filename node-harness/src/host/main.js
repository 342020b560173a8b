// @ts-check
/** The host: one environment's functions, as the supervisor's frames ask for them. */
import { formatLog, importFile, onUnhandledRejection, openProtocol } from '../shared/powers.js';
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

/** @param {string} level @param {unknown[]} values */
const log = (level, values) =>
  send({ log: { level, text: formatLog(values).slice(0, LOG_CHARS_MAX).toWellFormed() } });

for (const level of /** @type {const} */ (['debug', 'info', 'log', 'warn', 'error'])) {
  console[level] = (...values) => log(level, values);
}
onUnhandledRejection((reason) => log('error', ['Unhandled rejection:', reason]));
send({ ready: {} });
