// Minimal Socket.IO clients that may ignore pings and read slowly. A library would close such a connection by itself.
import { RawSocket, frame } from './raw.js';

const SEPARATOR = '\x1e';

/** The part that both transports share: it keeps received events and may answer pings. */
class Plain {
  /** Socket.IO events in the order of arrival: {event, payload}. */
  received = [];
  pings = 0;
  answersPings = true;

  take(packet) {
    if (packet === '2') {
      this.pings += 1;
      if (this.answersPings) this.say('3');
    } else if (packet.startsWith('42')) {
      const [event, payload] = JSON.parse(packet.slice(2));
      this.received.push({ event, payload });
    }
  }

  all(event) {
    return this.received.filter((one) => one.event === event).map(({ payload }) => payload);
  }
}

/** A client over a WebSocket. */
export class PlainWebSocket extends Plain {
  #parts = [];
  #length = 0;

  constructor(port, token) {
    super();
    this.raw = new RawSocket(port);
    this.raw.socket.removeAllListeners('data');
    let head = true;
    this.raw.socket.on('data', (data) => {
      this.#parts.push(data);
      this.#length += data.length;
      if (head) {
        const text = Buffer.concat(this.#parts).toString('latin1');
        const end = text.indexOf('\r\n\r\n');
        if (end < 0) return;
        head = false;
        this.#parts = [Buffer.concat(this.#parts).subarray(end + 4)];
        this.#length = this.#parts[0].length;
        this.say(`40${JSON.stringify({ token })}`);
      }
      this.#read();
    });
  }

  get closed() {
    return this.raw.closed;
  }

  say(packet) {
    this.raw.send(frame(packet));
  }

  close() {
    this.raw.socket.destroy();
  }

  #read() {
    // A large frame arrives in thousands of chunks. They are concatenated only when the frame is complete.
    while (this.#length >= (this.needed ?? 2)) {
      const all = this.#parts.length === 1 ? this.#parts[0] : Buffer.concat(this.#parts);
      const short = all[1] & 0x7f;
      const head = short === 127 ? 10 : short === 126 ? 4 : 2;
      if (all.length < head) return this.#keep(all, head);
      const size = short === 127 ? Number(all.readBigUInt64BE(2)) : short === 126 ? all.readUInt16BE(2) : short;
      if (all.length < head + size) return this.#keep(all, head + size);
      const isText = (all[0] & 0x0f) === 1;
      const packet = isText ? all.subarray(head, head + size).toString() : null;
      this.#keep(all.subarray(head + size), 2);
      if (packet !== null) this.take(packet);
    }
  }

  #keep(rest, needed) {
    this.#parts = [rest];
    this.#length = rest.length;
    this.needed = needed;
  }
}

/** A client over polling. */
export class PlainPolling extends Plain {
  closed = false;

  constructor(url, token) {
    super();
    this.running = this.#run(url, token).catch(() => {}).finally(() => (this.closed = true));
  }

  async #run(base, token) {
    const url = `${base}/socket.io/?EIO=4&transport=polling`;
    const opened = await (await fetch(url)).text();
    this.url = `${url}&sid=${JSON.parse(opened.slice(1)).sid}`;
    await this.say(`40${JSON.stringify({ token })}`);
    while (!this.ended) {
      const answer = await fetch(this.url);
      if (answer.status !== 200) return;
      for (const packet of (await answer.text()).split(SEPARATOR)) this.take(packet);
    }
  }

  async say(packet) {
    await fetch(this.url, { method: 'POST', body: packet }).catch(() => {});
  }

  close() {
    this.ended = true;
  }
}
