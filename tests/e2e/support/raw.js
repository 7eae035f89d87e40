// Raw WebSocket connections, for bytes that no library would send.
import { connect } from 'node:net';

/** A valid or invalid frame of a client. The mask is all zeros, which is a valid mask. */
export function frame(payload, { opcode = 1, fin = true, rsv = 0, masked = true, length = payload.length } = {}) {
  const size = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const head = Buffer.alloc(2 + size + (masked ? 4 : 0));
  head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  head[1] = (masked ? 0x80 : 0) | (size === 0 ? length : size === 2 ? 126 : 127);
  if (size === 2) head.writeUInt16BE(length, 2);
  if (size === 8) head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, Buffer.from(payload)]);
}

/** How many received characters are kept. */
const MAX_KEPT_CHARACTERS = 8192;
/** A ping of the gateway, which may arrive at any time. */
const HEARTBEAT = '\x81\x012';

/** One TCP connection with an upgrade request to a WebSocket. */
export class RawSocket {
  /** The last received bytes without pings, one character for each byte. The gateway's frames are not masked. */
  text = '';
  closed = false;
  #wake = () => {};

  /** `behind` are bytes that follow the request in the same segment. */
  constructor(port, { path = '/socket.io/?EIO=4&transport=websocket', headers = '', behind = '' } = {}) {
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true });
    this.socket.on('data', (data) => {
      this.text = (this.text + data.toString('latin1')).replaceAll(HEARTBEAT, '').slice(-MAX_KEPT_CHARACTERS);
      this.#wake();
    });
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.closed = true;
      this.#wake();
    });
    const request = `GET ${path} HTTP/1.1\r\nHost: localhost:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${headers}\r\n`;
    this.socket.write(Buffer.concat([Buffer.from(request, 'latin1'), Buffer.from(behind)]));
  }

  /** Waits until `what` is received, the connection is closed or the time is over; returns whether it was received. */
  async waitForText(what, within = 20_000) {
    const deadline = Date.now() + within;
    while (!this.text.includes(what) && !this.closed && Date.now() < deadline) {
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.#wake = () => (clearTimeout(timer), resolve());
      });
    }
    return this.text.includes(what);
  }

  /** Waits until the gateway closes the connection; returns whether it did. */
  async waitForClose(within = 20_000) {
    await this.waitForText('\u{10ffff}', within);
    return this.closed;
  }

  send(...frames) {
    if (!this.closed && this.socket.writable) this.socket.write(Buffer.concat(frames));
  }
}
