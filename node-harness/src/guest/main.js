// @ts-check
/**
 * The guest: closes its realm, rehearses, becomes a zygote, and in each process that is forked from it runs one
 * execution at a time, as the supervisor's messages say. What comes before is the same in every zygote and comes
 * from a snapshot.
 */
import { closePerimeter, formatStacks } from './perimeter.js';
import { blockingProtocol, forkGuests, leave, makePrinter, onUnhandledRejection } from '../shared/powers.js';
import { makeChannel } from './channel.js';
import { makeCompartments } from './compartments.js';
import { makeStacks } from './errors.js';
import { makeExecution } from './execution.js';
import { makeSharedGlobals } from './globals.js';
import { leaveNoGarbage, makeRehearsal } from './rehearsal.js';

const { setImmediate } = globalThis;

/** @typedef {{ write: (bytes: Buffer) => void, read: (into: Buffer, from: number) => number }} Protocol */

/**
 * @param {Protocol} protocol
 * @param {ReturnType<typeof makeStacks>} stacks
 * @param {ReturnType<typeof makeCompartments>} compartments
 */
const makeGuest = (protocol, stacks, compartments) => {
  const channel = makeChannel(protocol);

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

  /**
   * One turn of the loop: an end, a timer or a message. What these leave to microtasks runs before the next.
   *
   * @param {() => boolean} isOver @param {() => void} then  called when it is
   */
  const turn = (isOver, then) => {
    if (current?.hasEnded()) {
      rest(current);
    }
    if (isOver()) {
      then();
    } else {
      if (!current?.runTimer()) {
        receive();
      }
      setImmediate(turn, isOver, then);
    }
  };

  return Object.freeze({
    turn,
    sayReady: () => channel.send('{"ready":{}}'),
    /** @param {unknown} reason */
    unhandledRejection: (reason) => current?.unhandledRejection(reason),
  });
};

/** @param {string} library  the seal */
export const start = (library) => {
  const perimeter = closePerimeter();
  const stacks = makeStacks();
  formatStacks(stacks.format);
  const compartments = makeCompartments(perimeter.Compartment, makeSharedGlobals(perimeter));
  const rehearsal = makeRehearsal();
  makeGuest(rehearsal, stacks, compartments).turn(rehearsal.isOver, () => {
    leaveNoGarbage();
    forkGuests(library);
    const guest = makeGuest(blockingProtocol, stacks, compartments);
    onUnhandledRejection(guest.unhandledRejection);
    guest.sayReady();
    guest.turn(() => false, leave);
  });
};
