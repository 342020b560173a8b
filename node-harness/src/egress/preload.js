// @ts-check
/**
 * Sends outgoing connections through the egress socket files: a connection to `host:port` becomes
 * one to `/egress/host:port` when that file exists, and fails with EACCES when it does not. The
 * files are the allow-list; this preload only makes ordinary clients find them.
 */
import { readdirSync } from 'node:fs';
import net from 'node:net';

const directory = process.env.CLOISTER_EGRESS ?? '/egress';
const open = new Set(readdirSync(directory));
const { connect } = net.Socket.prototype;

/** The three call forms of `net.Socket.connect`. @param {any[]} values */
const normalize = (values) => {
  const [first, ...rest] = Array.isArray(values[0]) ? values[0] : values;
  const callback = rest.findLast((value) => typeof value === 'function');
  if (typeof first === 'object' && first !== null) {
    return { options: first, callback };
  }
  const isPort = typeof first === 'number' || /^\d+$/.test(first);
  const host = typeof rest[0] === 'string' ? rest[0] : undefined;
  return { options: isPort ? { port: Number(first), host } : { path: first }, callback };
};

/** @this {net.Socket} @param {...any} values @returns {any} */
function connectThroughEgress(...values) {
  const { options, callback } = normalize(values);
  if (options.path) {
    return Reflect.apply(connect, this, [options, callback]);
  }
  const host = String(options.host ?? 'localhost').toLowerCase().replace(/^\[(.*)\]$/, '$1');
  const name = `${host}:${options.port}`;
  if (open.has(name)) {
    return Reflect.apply(connect, this, [{ ...options, host: undefined, port: undefined, path: `${directory}/${name}` }, callback]);
  }
  const message = `connect EACCES ${name}: this address is not among the environment's backendUrls`;
  const error = Object.assign(new Error(message), { code: 'EACCES', syscall: 'connect', address: host, port: options.port });
  process.nextTick(() => this.destroy(error));
  return this;
}

net.Socket.prototype.connect = connectThroughEgress;
