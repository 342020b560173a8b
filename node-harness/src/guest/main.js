// @ts-check
/**
 * The guest: locks its realm down, seals its process, and then runs one execution at a time, as the
 * supervisor's frames say.
 *
 *     node main.js <the seal>
 */
import { formatStacks } from './perimeter.js';
import { makePrinter, onUnhandledRejection, openProtocol, seal, waitingSocket } from '../shared/powers.js';
import { makeExchange, makeFrames } from '../shared/frames.js';
import { makeStacks } from './errors.js';
import { makeExecution } from './execution.js';

/** @type {ReturnType<typeof makeExecution> | undefined} */
let current;

const stacks = makeStacks();
formatStacks(stacks.format);

const exchange = makeExchange(waitingSocket);

const { send, sendText } = makeFrames(openProtocol(), (/** @type {import('../shared/protocol.js').ToGuest} */ message) => {
  if ('execute' in message) {
    stacks.follow(message.execute);
    current = makeExecution({ sendText, exchange, makePrinter }, message.execute);
    current.start();
  } else if ('return' in message) {
    current?.settleReturn(message.return);
  } else if ('throw' in message) {
    current?.settleThrow(message.throw);
  }
});

await seal(process.argv[2]);
onUnhandledRejection((reason) => current?.unhandledRejection(reason));
send({ ready: {} });
