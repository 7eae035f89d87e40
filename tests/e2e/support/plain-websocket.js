// The interface of socket.io-client, as far as the tests use it, over the plain WebSocket `/ws`.
import { EventEmitter } from 'node:events';

import WebSocket from 'ws';

/** The tests run over `/ws` instead of Socket.IO. */
export const PLAIN = process.env.TASKCAST_E2E_CLIENT === 'ws';

/** Codes after which a client does not reconnect by itself. */
const FINAL = [4400, 4401, 4403, 4413];

let connections = 0;

/** Takes listeners, and does not treat `error` in a special way. */
class Emitter {
  #inner = new EventEmitter().setMaxListeners(0);

  on(event, listener) {
    this.#inner.on(`event ${event}`, listener);
    return this;
  }

  once(event, listener) {
    this.#inner.once(`event ${event}`, listener);
    return this;
  }

  off(event, listener) {
    this.#inner.off(`event ${event}`, listener);
    return this;
  }

  fire(event, ...more) {
    this.#inner.emit(`event ${event}`, ...more);
  }
}

/** The part below the messages: it reports every received text as a packet. */
class Engine extends Emitter {
  transport = { ws: null };

  write(data) {
    this.transport.ws.send(data);
  }

  /** Loses the connection without a close frame. The end is reported at once, as socket.io-client does. */
  close() {
    const { ws } = this.transport;
    this.fire('dropped');
    ws.terminate();
  }
}

class PlainSocket extends Emitter {
  connected = false;
  id = undefined;
  #any = [];
  #answers = new Map();
  #asked = 0;
  #ended = false;

  constructor(url, { auth, query = {}, extraHeaders = {}, ...opts }) {
    super();
    const address = new URL('/ws', url.replace(/^http/, 'ws'));
    for (const [name, value] of Object.entries(query)) address.searchParams.set(name, value);
    Object.assign(this, { address, auth, headers: extraHeaders });
    this.io = Object.assign(new Emitter(), { opts, engine: new Engine() });
    this.io.engine.transport.name = opts.transports?.at(-1) ?? 'ws';
    this.io.engine.on('dropped', () => this.#closed(this.io.engine.transport.ws, 1006, 'forced close'));
    this.#open();
  }

  onAny(listener) {
    this.#any.push(listener);
  }

  connect() {
    this.#ended = false;
    this.#open();
    return this;
  }

  disconnect() {
    this.#ended = true;
    this.io.engine.transport.ws.close();
    return this;
  }

  /** The last argument may be a function, which gets the answer. `/ws` takes one payload. */
  emit(event, ...more) {
    const answer = typeof more.at(-1) === 'function' ? more.pop() : undefined;
    const id = answer && (this.#asked += 1);
    if (answer) this.#answers.set(id, answer);
    this.send(JSON.stringify({ type: event, payload: more[0], id }));
    return this;
  }

  emitWithAck(event, ...payload) {
    return this.timeout(undefined).emitWithAck(event, ...payload);
  }

  timeout(ms) {
    return {
      emitWithAck: (event, ...payload) => new Promise((resolve, reject) => {
        const timer = ms && setTimeout(reject, ms, new Error('operation has timed out'));
        this.emit(event, ...payload, (answer) => (clearTimeout(timer), resolve(answer)));
      }),
    };
  }

  /** Sends a text as it is. While the connection is being made, it waits. */
  send(text) {
    const { ws } = this.io.engine.transport;
    if (this.connected) ws.send(text);
    else this.once('connect', () => this.send(text));
  }

  #open() {
    const { engine } = this.io;
    const ws = new WebSocket(this.address, { headers: this.headers });
    engine.transport.ws = ws;
    this.refusal = undefined;
    ws.on('open', () => {
      this.io.fire('open');
      if (!('Authorization' in this.headers)) ws.send(JSON.stringify({ type: 'auth', payload: { token: this.auth?.token } }));
    });
    ws.on('unexpected-response', (_request, response) => {
      this.refusal = new Error(`status ${response.statusCode}`);
      ws.terminate();
    });
    ws.on('error', (error) => (this.refusal ??= error));
    ws.on('message', (data) => {
      if (ws !== engine.transport.ws || ws === this.lost) return;
      const text = data.toString();
      engine.fire('packet', { type: 'message', data: text });
      const message = JSON.parse(text);
      if (message.type === 'refused' && !this.connected) this.refusal = new Error(message.payload.code);
      else this.#receive(message);
    });
    ws.on('close', (code) => this.#closed(ws, code, this.#ended ? 'io client disconnect' : 'transport close'));
  }

  /** The connection has ended, which is reported once. */
  #closed(ws, code, reason) {
    if (ws !== this.io.engine.transport.ws || ws === this.lost) return;
    this.lost = ws;
    const was = this.connected;
    this.connected = false;
    this.id = undefined;
    if (was) this.fire('disconnect', reason);
    else this.fire('connect_error', this.refusal ?? new Error(`closed with ${code}`));
    const mayReturn = was || !FINAL.includes(code);
    if (this.io.opts.reconnection !== false && mayReturn && !this.#ended) setTimeout(() => this.#ended || this.io.engine.transport.ws !== ws || this.#open(), this.io.opts.reconnectionDelay ?? 1000);
  }

  #receive({ type, payload, id }) {
    if (type === 'init') {
      this.connected = true;
      this.id = `connection ${(connections += 1)}`;
      this.fire('connect');
    } else if (type === 'ack') {
      const answer = this.#answers.get(id);
      this.#answers.delete(id);
      answer?.(payload);
    } else {
      // A refusal is the event `error` of Socket.IO.
      const event = type === 'refused' ? 'error' : type;
      for (const listener of this.#any) listener(event, payload);
      this.fire(event, payload);
    }
  }
}

export const io = (url, options) => new PlainSocket(url, options);
