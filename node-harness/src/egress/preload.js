// @ts-check
/**
 * Sends outgoing connections through the egress socket files: a connection to `host:port` becomes
 * one to `/egress/host:port` when that file exists, and fails with EACCES when it does not. The
 * files are the allow-list; this preload only makes ordinary clients find them.
 */
import { readdirSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import net from 'node:net';

const directory = process.env.CLOISTER_EGRESS ?? '/egress';
const open = new Set(readdirSync(directory));
/** No backend's URL allows TLS. */
const withoutTls = process.env.CLOISTER_EGRESS_TLS === 'off';
const { connect: connectSocket } = net.Socket.prototype;

/** The call forms of `net.Socket.connect` and `tls.connect`. @param {any[]} values */
const normalize = (values) => {
  const [first, ...rest] = Array.isArray(values[0]) ? values[0] : values;
  const callback = rest.findLast((value) => typeof value === 'function');
  if (typeof first === 'object' && first !== null) {
    return { options: first, callback };
  }
  const isPort = typeof first === 'number' || /^\d+$/.test(first);
  const host = rest.find((value) => typeof value === 'string');
  const more = rest.find((value) => typeof value === 'object' && value !== null);
  return { options: isPort ? { ...more, port: Number(first), host } : { ...more, path: first }, callback };
};

/** The address that the options name, as the socket files are named. @param {any} options */
const addressOf = (options) => {
  const host = String(options.host ?? 'localhost').toLowerCase().replace(/^\[(.*)\]$/, '$1');
  return { host, name: `${host}:${options.port}` };
};

/**
 * Tells the supervisor which address was refused, for the execution's record, and goes on when it
 * has heard that or does not listen.
 *
 * @param {string} name
 * @param {() => void} done
 */
const report = (name, done) => {
  const socket = new net.Socket();
  socket.on('error', () => {}).on('close', done).resume();
  Reflect.apply(connectSocket, socket, [{ path: `${directory}/refused` }, () => socket.end(name)]);
};

/** @this {net.Socket} @param {...any} values @returns {any} */
function connectThroughEgress(...values) {
  const { options, callback } = normalize(values);
  if (options.path) {
    return Reflect.apply(connectSocket, this, [options, callback]);
  }
  const { host, name } = addressOf(options);
  if (open.has(name) && withoutTls && 'encrypted' in this) {
    const message = `connect EPROTO ${name}: this address speaks no TLS, as its URL in backendUrls says (http: or ws:)`;
    const error = Object.assign(new Error(message), { code: 'EPROTO', syscall: 'connect', address: host, port: options.port });
    process.nextTick(() => this.destroy(error));
    return this;
  }
  if (open.has(name)) {
    return Reflect.apply(connectSocket, this, [{ ...options, path: `${directory}/${name}` }, callback]);
  }
  const message = `connect EACCES ${name}: this process may not reach this address (see backendUrls)`;
  const error = Object.assign(new Error(message), { code: 'EACCES', syscall: 'connect', address: host, port: options.port });
  report(name, () => this.destroy(error));
  return this;
}

net.Socket.prototype.connect = connectThroughEgress;

// A TLS socket decides when it is made whether it is a pipe, so it has to be told the path here. To load TLS takes
// as long as half of Node's own boot, so it is left where no address is for it.
if (!withoutTls) {
  const tls = process.getBuiltinModule('node:tls');
  const { connect } = tls;
  tls.connect = (/** @type {any[]} */ ...values) => {
    const { options, callback } = normalize(values);
    const { name } = addressOf(options);
    const path = options.socket || options.path || !open.has(name) ? options.path : `${directory}/${name}`;
    return Reflect.apply(connect, tls, [{ ...options, path }, callback]);
  };
}

syncBuiltinESMExports();
