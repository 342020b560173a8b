// @ts-check
/** The guest: one execution at a time, as the supervisor's frames say. */
import './perimeter.js';
import { formatLog, onUnhandledRejection, openProtocol } from '../shared/powers.js';
import { makeFrames } from '../shared/frames.js';
import { makeExecution } from './execution.js';

/** @type {ReturnType<typeof makeExecution> | undefined} */
let current;

const { send, sendText } = makeFrames(openProtocol(), (/** @type {import('../shared/protocol.js').ToGuest} */ message) => {
  if ('execute' in message) {
    current = makeExecution({ sendText, formatLog }, message.execute);
    current.start();
  } else if ('return' in message) {
    current?.settleReturn(message.return);
  } else if ('throw' in message) {
    current?.settleThrow(message.throw);
  }
});

onUnhandledRejection((reason) => current?.unhandledRejection(reason));
send({ ready: {} });
