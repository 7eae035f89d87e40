// A real socket.io-client, or a client of `/ws`, that keeps copies as the contract defines, and all events that it has received.
import assert from 'node:assert/strict';

import { io as io48 } from 'socket.io-client';

import { DashboardCopy, TaskCopy } from './copy.js';
import { io as plainIo, PLAIN } from './plain-websocket.js';
import { once, until } from './until.js';

const ACK_TIMEOUT_MS = 30_000;

const open = new Set();

/** Closes the clients that a test has left open. An open socket would keep the process alive. */
export function closeClients() {
  for (const client of open) client.close();
}

export class Client {
  /** All events in the order of arrival: {event, payload}. */
  received = [];
  /** Copies by task id. */
  tasks = new Map();
  dashboard = new DashboardCopy();
  /** Violations of the order; a test asserts that there are none. */
  faults = [];
  disconnects = [];

  /** Connects a client and waits until it is connected. */
  static async connect(gateway, token, options) {
    const client = new Client(gateway, token, options);
    await client.connected();
    return client;
  }

  constructor(gateway, token, { io = PLAIN ? plainIo : io48, keep = true, ...options } = {}) {
    this.socket = io(gateway.url ?? gateway, {
      auth: { token },
      forceNew: true,
      transports: ['websocket'],
      reconnection: false,
      ...options,
    });
    open.add(this);
    this.keep = keep;
    this.socket.onAny((event, payload, more) => this.#receive(event, payload, more));
    this.socket.on('disconnect', (reason) => this.disconnects.push(reason));
  }

  #receive(event, payload, more) {
    if (this.keep) this.received.push({ event, payload });
    try {
      if (event.startsWith('dashboard:') || event === 'task:created') this.dashboard.apply(event, payload, more);
      else if (event.startsWith('task:')) this.copy(payload.taskId).apply(event, payload);
    } catch (error) {
      this.faults.push(error);
    }
  }

  async connected() {
    if (this.socket.connected) return this;
    await new Promise((resolve, reject) => {
      const timer = setTimeout(reject, ACK_TIMEOUT_MS, new Error('not connected in time'));
      this.socket.once('connect', () => (clearTimeout(timer), resolve()));
      if (!this.socket.io.opts.reconnection) {
        this.socket.once('connect_error', (error) => (clearTimeout(timer), reject(error)));
      }
    });
    return this;
  }

  /** The copy of a task. */
  copy(taskId) {
    if (!this.tasks.has(taskId)) this.tasks.set(taskId, new TaskCopy(taskId));
    return this.tasks.get(taskId);
  }

  /** Emits and returns the acknowledgement. */
  ask(event, ...payload) {
    return this.socket.timeout(ACK_TIMEOUT_MS).emitWithAck
      ? this.socket.timeout(ACK_TIMEOUT_MS).emitWithAck(event, ...payload)
      : new Promise((resolve, reject) => {
          this.socket.timeout(ACK_TIMEOUT_MS).emit(event, ...payload, (error, answer) => (error ? reject(error) : resolve(answer)));
        });
  }

  /** Emits an event whose payload is this text, which JSON.stringify may not be able to produce. */
  emitText(event, payload) {
    if (PLAIN) this.socket.send(`{"type":"${event}","payload":${payload}}`);
    else this.socket.io.engine.write(`2["${event}",${payload}]`);
  }

  /** The same, and returns the acknowledgement. */
  async askText(event, payload) {
    const id = 424_200 + Math.floor(Math.random() * 100_000);
    const prefix = PLAIN ? `{"type":"ack","id":${id},"payload":` : `3${id}[`;
    let answer;
    const listener = ({ type, data }) => {
      if (type === 'message' && typeof data === 'string' && data.startsWith(prefix)) answer = JSON.parse(data.slice(prefix.length, -1));
    };
    const { engine } = this.socket.io;
    engine.on('packet', listener);
    if (PLAIN) this.socket.send(`{"type":"${event}","payload":${payload},"id":${id}}`);
    else engine.write(`2${id}["${event}",${payload}]`);
    try {
      return await until(() => answer, `an acknowledgement of ${event} ${payload.slice(0, 60)}; disconnects: ${this.disconnects}`);
    } finally {
      engine.off('packet', listener);
    }
  }

  /** Joins a task and waits for its state. */
  async join(taskId) {
    const before = this.copy(taskId).states;
    const answer = await this.ask('task:join', { taskId });
    assert.equal(answer.ok, true, `task:join ${taskId}: ${JSON.stringify(answer)}`);
    await until(() => this.copy(taskId).states > before, `task:state of ${taskId}`);
    return answer;
  }

  async joinDashboard() {
    const before = this.dashboard.states;
    const answer = await this.ask('dashboard:join');
    assert.equal(answer.ok, true, `dashboard:join: ${JSON.stringify(answer)}`);
    await until(() => this.dashboard.states > before, 'dashboard:state');
    return answer;
  }

  /** Waits for an event that `matches` and returns its payload. */
  async waitForEvent(event, matches = () => true, within) {
    const found = () => this.received.find((entry) => entry.event === event && matches(entry.payload));
    return (await until(found, () => `${event}; received: ${this.lastEvents()}`, within)).payload;
  }

  /** The last received events, for error messages. */
  lastEvents() {
    return this.received.slice(-20).map(({ event, payload }) => `${event} ${JSON.stringify(payload)?.slice(0, 120)}`).join('\n');
  }

  /** The payloads of all events of this name, in order. */
  all(event) {
    return this.received.filter((entry) => entry.event === event).map(({ payload }) => payload);
  }

  /** The next time this socket is disconnected. */
  disconnected() {
    return once(this.socket, 'disconnect');
  }

  /** Loses the transport without a close message, like a network failure. */
  drop() {
    this.socket.io.engine.close();
  }

  close() {
    open.delete(this);
    this.socket.disconnect();
  }

  assertInOrder() {
    assert.deepEqual(this.faults.slice(0, 5).map(({ message }) => message), []);
  }
}

/** Connects, expects a refusal, and returns its error code. */
export async function refused(gateway, token, options = {}) {
  const client = new Client(gateway, token, options);
  try {
    const error = await new Promise((resolve, reject) => {
      client.socket.once('connect', () => reject(new Error('the client was accepted')));
      client.socket.once('connect_error', resolve);
    });
    return error.message;
  } finally {
    client.close();
  }
}
