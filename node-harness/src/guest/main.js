// @ts-check
/**
 * The guest: locks its realm down, seals its process, and then runs one execution at a time, as the
 * supervisor's frames say.
 *
 *     node main.js <the seal>
 */
import { formatStacks } from './perimeter.js';
import { leave, makePrinter, onUnhandledRejection, openProtocol, seal, waitingSocket } from '../shared/powers.js';
import { makeExchange, makeFrames } from '../shared/frames.js';
import { makeCompartments } from './compartments.js';
import { makeStacks } from './errors.js';
import { makeExecution } from './execution.js';

const stacks = makeStacks();
formatStacks(stacks.format);
const compartments = makeCompartments();

/** @type {ReturnType<typeof makeExecution> | undefined} */
let current;

const { send, sendText } = makeFrames(openProtocol(), (/** @type {import('../shared/protocol.js').ToGuest} */ message) => {
  if ('execute' in message) {
    stacks.follow(message.execute);
    current = makeExecution(powers, compartments.take(), message.execute);
    current.start();
  } else if ('return' in message && message.return.executionId === current?.executionId) {
    current.settleReturn(message.return);
  } else if ('throw' in message && message.throw.executionId === current?.executionId) {
    current.settleThrow(message.throw);
  }
});

const powers = { sendText, exchange: makeExchange(waitingSocket), leave, makePrinter, whenIdle: compartments.prepare };

await seal(process.argv[2]);
onUnhandledRejection((reason) => current?.unhandledRejection(reason));
send({ ready: {} });
