// Clients of one task's room that check each event on arrival and store nothing, so that they are cheap enough for bursts.
import assert from 'node:assert/strict';

import { member } from '../../e2e/support/tokens.js';
import { until } from '../../e2e/support/until.js';
import { io as plainIo } from '../../e2e/support/plain-websocket.js';
import { io } from './packages.js';
import { EXISTING } from './watcher.js';

const open = new Set();

/** A client that checks the numbers of events. The writer numbers timeline entries by position, and `prNumber` by its own sequence. */
export class Reader {
  /** The number of the next expected timeline entry. */
  next = null;
  /** The next expected `prNumber`. */
  number = null;
  states = 0;
  lastId = '';
  faults = [];
  disconnects = [];
  /** Milliseconds from write to arrival, while it is an array. */
  latencies = null;

  constructor(url, token, taskId, options = {}) {
    this.taskId = taskId;
    this.socket = (options.transports?.[0] === 'ws' ? plainIo : io)(url, {
      auth: { token }, forceNew: true, transports: ['websocket'], reconnectionDelay: 50, reconnectionDelayMax: 500, ...options,
    });
    open.add(this);
    this.socket.on('connect', () => this.socket.emit('resync_requested', { taskIds: [taskId] }));
    this.socket.on('disconnect', (reason) => this.disconnects.push(reason));
    this.socket.on('task:state', (state) => {
      this.states += 1;
      this.next = (state.eventsOmitted ?? 0) + state.events.length;
      this.number = (state.prNumber ?? -1) + 1;
      this.lastId = state.eventId;
    });
    this.socket.on('task:updated', (payload) => {
      this.#order(payload);
      if (payload.changed.prNumber !== this.number) this.#fault(`prNumber ${payload.changed.prNumber} where ${this.number} was expected`);
      this.number = payload.changed.prNumber + 1;
      if (payload.changed.title) this.latencies?.push(Date.now() - Number.parseInt(payload.changed.title, 10));
    });
    this.socket.on('task:event_added', (payload) => {
      this.#order(payload);
      const { n, at } = payload.event.payload;
      if (n !== this.next) this.#fault(`entry ${n} where ${this.next} was expected`);
      this.next = n + 1;
      this.latencies?.push(Date.now() - at);
    });
  }

  #order({ eventId }) {
    if (eventId <= this.lastId) this.#fault(`${eventId} after ${this.lastId}`);
    this.lastId = eventId;
  }

  #fault(text) {
    if (this.faults.length < 5) this.faults.push(text);
  }

  /** Returns whether this client has all entries and numbers. */
  has({ entries, numbers = 0 }) {
    return this.next === entries && this.number === numbers;
  }

  close() {
    open.delete(this);
    this.socket.disconnect();
  }
}

export const closeReaders = () => open.forEach((reader) => reader.close());

/** Connects readers and waits for their states. `options(n)` are the options of the n-th. The first has the existing client's options. */
export async function readers(count, url, taskId, options = () => ({})) {
  const all = await Promise.all(Array.from({ length: count }, async (_, n) =>
    new Reader(url, await member(`reader-${n}`), taskId, n === 0 ? EXISTING : options(n))));
  await until(() => all.every(({ states }) => states > 0), () => `${all.filter(({ states }) => states > 0).length} of ${count} have a state`, 60_000);
  return all;
}

/** Waits until all readers have everything. The error lists those that have not. */
export function untilComplete(all, what, within = 90_000) {
  const missing = () => all.filter((reader) => !reader.has(what));
  return until(() => missing().length === 0, () => `${missing().length} of ${all.length} lack events: ${
    missing().slice(0, 5).map(({ next, number, disconnects, faults }) => JSON.stringify({ next, number, disconnects, faults })).join(' ')}; expected ${JSON.stringify(what)}`, within);
}

/** Asserts that all events came in order and without a gap, on one connection and after one state. */
export function assertUncut(all) {
  assert.deepEqual(all.flatMap(({ faults }) => faults), []);
  assert.deepEqual(all.flatMap(({ disconnects }) => disconnects), []);
  assert.deepEqual([...new Set(all.map(({ states }) => states))], [1]);
}

export const newTask = (_id) => ({
  _id, title: 'watched', status: 'coding', createdBy: 'somebody', orgId: 'acme', isPrivate: false, createdAt: new Date(), updatedAt: new Date(), events: [],
});

/** Timeline entries from number `from` on, each of about `bytes`. */
export function entries(from, count, bytes = 0) {
  const filling = bytes > 0 ? { filling: 'x'.repeat(bytes) } : {};
  return Array.from({ length: count }, (_, n) => ({ eventType: 'step', payload: { n: from + n, at: Date.now(), ...filling }, createdAt: new Date() }));
}

export function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}
