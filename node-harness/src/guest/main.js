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
import { makeConsole } from './console.js';
import { makeEndowments } from './endowments.js';
import { makeStacks } from './errors.js';
import { makeExecution } from './execution.js';
import { makeSharedGlobals } from './globals.js';
import { leaveNoGarbage, makeRehearsal } from './rehearsal.js';
import { makeTimers } from './timers.js';

const { setImmediate } = globalThis;

/** @param {string} library  the seal */
export const start = (library) => {
  const perimeter = closePerimeter();
  const stacks = makeStacks();
  formatStacks(stacks.format);
  const endowments = makeEndowments();
  const printing = makeConsole(makePrinter);
  const timers = makeTimers();
  const compartments = makeCompartments(perimeter.Compartment, {
    ...makeSharedGlobals(perimeter),
    ...timers.globals,
    console: printing.console,
  });
  const rehearsal = makeRehearsal(blockingProtocol);
  // What a guest runs is what was rehearsed, down to each closure: V8 has compiled these.
  let ends = /** @type {typeof blockingProtocol} */ (rehearsal);
  const channel = makeChannel({ write: (bytes) => ends.write(bytes), read: (into, from) => ends.read(into, from) });

  /** @type {ReturnType<typeof makeExecution> | undefined} */
  let current;

  /**
   * Only a guest that turned its loop again after the end of a program says that it is idle. That keeps programs apart:
   * what they share acts for the one that runs, so nothing of an earlier one may run any more.
   */
  const rest = (/** @type {ReturnType<typeof makeExecution>} */ ended) => {
    current = undefined;
    if (channel.isBroken()) {
      leave();
    }
    ended.sendIdle();
    compartments.prepare();
  };

  /** @param {import('../shared/protocol.js').Execute} execute */
  const make = (execute) => {
    stacks.follow(execute);
    return makeExecution({ channel, endowments, printing, timers }, compartments.take(), execute);
  };

  /**
   * Gets an execution ready that may come, and starts it if that is what the next message says. Gives the next message
   * otherwise.
   *
   * @param {import('../shared/protocol.js').Execute} announced
   */
  const startAnnounced = (announced) => {
    const isThis = (/** @type {any} */ message) => message.confirm?.executionId === announced.executionId;
    let message;
    const execution = make(announced);
    const isStarted = execution.startIf(() => {
      message = channel.next();
      return isThis(message);
    });
    if (isStarted) {
      current = execution;
      return undefined;
    }
    message ??= channel.next();
    // A text that is no program is told of when it is to run.
    return isThis(message) ? { execute: announced } : message;
  };

  /** Waits for a message and does what it says. */
  const receive = () => {
    current?.waitForTimers();
    let message = channel.next();
    while (message?.announce) {
      message = startAnnounced(message.announce);
    }
    if (message?.execute) {
      current = make(message.execute);
      current.start();
    } else if (message) {
      current?.receive(message);
    }
  };

  /** The zygote stays in the midst of this, and each fork goes on with the supervisor. */
  const becomeGuest = () => {
    leaveNoGarbage();
    forkGuests(library);
    ends = blockingProtocol;
    channel.send('{"ready":{}}');
  };

  /** One turn of the loop: an end, a timer or a message. What these leave to microtasks runs before the next. */
  const turn = () => {
    if (current?.hasEnded()) {
      rest(current);
    }
    if (ends === rehearsal && rehearsal.isOver()) {
      becomeGuest();
    }
    if (!current?.runTimer()) {
      receive();
    }
    setImmediate(turn);
  };

  onUnhandledRejection((reason) => current?.unhandledRejection(reason));
  rehearsal.start();
  turn();
};
