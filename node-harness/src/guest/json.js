// @ts-check
/**
 * Turns a program's value into JSON text, rebuilt by us: no `toJSON`, no method of the value is
 * called, and what it is decides and not what it says of itself. What JSON lacks becomes: undefined, NaN and infinities → null; BigInt → string;
 * Date → ISO string; Map → object (string keys) or array of entries; Set and typed arrays → array;
 * Error → {name, message}; URL → its text. Functions, symbols and cycles are refused with their path.
 */
import { types } from '../shared/powers.js';
import { textOfUrl } from './url.js';

/** Deeper values are refused: readers of JSON commonly stop at 128. */
const DEPTH_MAX = 100;

/**
 * @param {string} code
 * @param {string} message
 */
const refuse = (code, message) => {
  throw Object.assign(new TypeError(message), { code });
};

/** The first word of a path is the name of the whole: `result` or `params`. @param {string} path */
const tooLarge = (path) =>
  refuse(`${/^\w*/.exec(path)?.[0]}_too_large`, `what stands at ${path} makes the whole larger than it may be as JSON`);

/** @param {string} path @param {string | number} key */
const under = (path, key) =>
  typeof key === 'number' ? `${path}[${key}]` : /^[\w$]+$/.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`;

/** @param {any} value @param {string} path @param {object[]} parents @param {{ left: number }} room @returns {unknown} */
const rebuild = (value, path, parents, room) => {
  room.left -= 1;
  if (room.left < 0) {
    tooLarge(path);
  }
  switch (typeof value) {
    case 'string':
      room.left -= value.length;
      return value.toWellFormed();
    case 'number':
      return Number.isFinite(value) ? value : null;
    case 'boolean':
      return value;
    case 'undefined':
      return null;
    case 'bigint':
      return `${value}`;
    case 'function':
    case 'symbol':
      return refuse('not_serialisable', `${path} is a ${typeof value}, which has no JSON form`);
    default:
      return value === null ? null : rebuildObject(value, path, parents, room);
  }
};

const { values: typedArrayValues } = Object.getPrototypeOf(Uint8Array).prototype;

/** `new String('a')` and the like. */
const BOXES = /** @type {const} */ ([
  [types.isStringObject, String],
  [types.isNumberObject, Number],
  [types.isBooleanObject, Boolean],
  [types.isBigIntObject, BigInt],
]);

/** @param {any} value @param {string} path @param {object[]} parents @param {{ left: number }} room @returns {unknown} */
const rebuildObject = (value, path, parents, room) => {
  if (parents.includes(value)) {
    refuse('not_serialisable', `${path} refers back to an object that contains it`);
  }
  if (parents.length >= DEPTH_MAX) {
    refuse('nesting_too_deep', `${path} lies more than ${DEPTH_MAX} levels deep`);
  }
  const inner = [...parents, value];
  /** @param {Iterable<unknown>} items @returns {unknown[]} */
  const list = (items) => {
    const result = [];
    for (const item of items) {
      result.push(rebuild(item, under(path, result.length), inner, room));
    }
    return result;
  };
  if (Array.isArray(value)) {
    // Read once: a proxy may give another length each time.
    const length = Number(value.length);
    if (!(length <= room.left)) {
      tooLarge(path);
    }
    return list(Array.from({ length }, (_, index) => value[index]));
  }
  if (types.isDate(value)) {
    const time = Date.prototype.getTime.call(value);
    return Number.isNaN(time) ? null : Date.prototype.toISOString.call(value);
  }
  if (types.isMap(value)) {
    const entries = Array.from(Map.prototype.entries.call(value));
    return entries.every(([key]) => typeof key === 'string')
      ? fields(entries, path, inner, room)
      : list(entries);
  }
  if (types.isSet(value)) {
    return list(Array.from(Set.prototype.values.call(value)));
  }
  if (types.isTypedArray(value)) {
    return list(Reflect.apply(typedArrayValues, value, []));
  }
  if (types.isNativeError(value)) {
    return { name: text(value, 'name'), message: text(value, 'message') };
  }
  if (types.isPromise(value)) {
    refuse('not_serialisable', `${path} is a promise: write \`await\` before it`);
  }
  if (types.isBoxedPrimitive(value)) {
    const box = BOXES.find(([is]) => is(value))?.[1];
    return box ? rebuild(Reflect.apply(box.prototype.valueOf, value, []), path, parents, room) : refuse('not_serialisable', `${path} is a symbol, which has no JSON form`);
  }
  const url = textOfUrl(value);
  if (url !== undefined) {
    return url;
  }
  return fields(Object.keys(value).map((key) => [key, value[key]]), path, inner, room);
};

/** @param {any[][]} entries @param {string} path @param {object[]} parents @param {{ left: number }} room @returns {object} */
const fields = (entries, path, parents, room) => {
  const result = Object.create(null);
  for (const [key, item] of entries) {
    room.left -= key.length;
    // As in JSON.stringify, a field without a value is left out.
    if (item !== undefined) {
      result[key.toWellFormed()] = rebuild(item, under(path, key), parents, room);
    }
  }
  return result;
};

/** A string property of a hostile object, or the empty string. @param {any} value @param {string} key */
export const text = (value, key) => {
  try {
    const found = value[key];
    return typeof found === 'string' ? found.toWellFormed() : '';
  } catch {
    return '';
  }
};

/**
 * @param {unknown} value
 * @param {'result' | 'params'} name  what errors call the value
 * @param {number} bytesMax
 * @returns {string} JSON
 */
export const toJson = (value, name, bytesMax) => {
  const json = JSON.stringify(rebuild(value, name, [], { left: bytesMax }));
  if (Buffer.byteLength(json) > bytesMax) {
    refuse(`${name}_too_large`, `${name} is larger than ${bytesMax} bytes as JSON`);
  }
  return json;
};

/** What a value is, before it becomes JSON. @param {any} value @returns {string} */
export const typeOf = (value) => {
  if (typeof value !== 'object') {
    return typeof value;
  }
  if (value === null) {
    return 'null';
  }
  const kinds = /** @type {const} */ ([
    ['array', Array.isArray(value)],
    ['date', types.isDate(value)],
    ['map', types.isMap(value)],
    ['set', types.isSet(value)],
    ['typed_array', types.isTypedArray(value)],
    ['error', types.isNativeError(value)],
  ]);
  return kinds.find(([, is]) => is)?.[0] ?? 'object';
};
