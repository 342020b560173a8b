// @ts-check
/**
 * The guest: closes its realm, seals its process, and then runs one execution at a time, as the
 * supervisor's messages say. What comes before is the same in every guest and comes from a snapshot.
 */
import { closePerimeter, formatStacks } from './perimeter.js';
import { blockingProtocol, leave, makePrinter, onUnhandledRejection, seal } from '../shared/powers.js';
import { makeChannel } from './channel.js';
import { makeCompartments } from './compartments.js';
import { makeStacks } from './errors.js';
import { makeExecution } from './execution.js';
import { makeSharedGlobals } from './globals.js';

const { setImmediate } = globalThis;

/** @param {string} library  the seal */
export const start = (library) => {
  const perimeter = closePerimeter();
  const stacks = makeStacks();
  formatStacks(stacks.format);
  const compartments = makeCompartments(perimeter.Compartment, makeSharedGlobals(perimeter));
  const channel = makeChannel(blockingProtocol);

  /** @type {ReturnType<typeof makeExecution> | undefined} */
  let current;

  /** Only a guest that turned its loop again after the end of a program says that it is idle. */
  const rest = (/** @type {ReturnType<typeof makeExecution>} */ ended) => {
    current = undefined;
    if (channel.isBroken()) {
      leave();
    }
    ended.sendIdle();
    compartments.prepare();
  };

  /** Waits for a message and does what it says. */
  const receive = () => {
    current?.waitForTimers();
    const message = channel.next();
    if ('execute' in message) {
      stacks.follow(message.execute);
      current = makeExecution({ channel, makePrinter }, compartments.take(), message.execute);
      current.start();
    } else {
      current?.receive(message);
    }
  };

  /** One turn of the loop: an end, a timer or a message. What these leave to microtasks runs before the next. */
  const turn = () => {
    if (current?.hasEnded()) {
      rest(current);
    }
    if (!current?.runTimer()) {
      receive();
    }
    setImmediate(turn);
  };

  seal(library);
  onUnhandledRejection((reason) => current?.unhandledRejection(reason));
  channel.send('{"ready":{}}');
  turn();
};
