// Engine.IO's transports over raw sockets, for bytes that no library would send.
import { connect } from 'node:net';

/** A frame as a client sends it, or as it must not. Masked with zeros, which is a mask like any other. */
export function frame(payload, { opcode = 1, fin = true, rsv = 0, masked = true, length = payload.length } = {}) {
  const size = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const head = Buffer.alloc(2 + size + (masked ? 4 : 0));
  head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  head[1] = (masked ? 0x80 : 0) | (size === 0 ? length : size === 2 ? 126 : 127);
  if (size === 2) head.writeUInt16BE(length, 2);
  if (size === 8) head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, Buffer.from(payload)]);
}

/** Of what came, so much is kept. */
const KEPT = 8192;
/** It may come at any time. */
const HEARTBEAT = '\x81\x012';

/** One TCP connection, on which an upgrade to a WebSocket is asked for. */
export class RawSocket {
  /** The end of what came, without heartbeats, a character for each byte; a gateway's frames are not masked. */
  text = '';
  closed = false;
  #wake = () => {};

  /** `behind`: bytes that follow the request in the same segment. */
  constructor(port, { path = '/socket.io/?EIO=4&transport=websocket', headers = '', behind = '' } = {}) {
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true });
    this.socket.on('data', (data) => {
      this.text = (this.text + data.toString('latin1')).replaceAll(HEARTBEAT, '').slice(-KEPT);
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

  /** Until it has been said, or nothing more can come; whether it has. */
  async hears(what, within = 20_000) {
    const deadline = Date.now() + within;
    while (!this.text.includes(what) && !this.closed && Date.now() < deadline) {
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.#wake = () => (clearTimeout(timer), resolve());
      });
    }
    return this.text.includes(what);
  }

  /** Whether the other side has ended it. */
  async ends(within = 20_000) {
    await this.hears('\u{10ffff}', within);
    return this.closed;
  }

  send(...frames) {
    if (!this.closed && this.socket.writable) this.socket.write(Buffer.concat(frames));
  }
}
