// Attacks of a client without a token. Each attack is one TCP connection that sends as much as the gateway accepts.
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';

import { until } from './until.js';

const CRLF = '\r\n';
const MB = 1024 * 1024;

const head = (method, query, headers = {}) => [
  `${method} /socket.io/?EIO=4&transport=${query} HTTP/1.1`, 'Host: gate',
  ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`), '', '',
].join(CRLF);

const upgrade = (query = 'websocket', more = {}) => head('GET', query, {
  Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13, 'Sec-WebSocket-Key': randomBytes(16).toString('base64'), ...more,
});

/** A masked WebSocket frame. `claimed` is the length in its header. */
export function frame(opcode, body, { fin = true, compressed = false, claimed = body.length } = {}) {
  const start = [(fin ? 0x80 : 0) | (compressed ? 0x40 : 0) | opcode];
  const length = claimed < 126 ? [0x80 | claimed] : claimed < 65536 ? [0x80 | 126, claimed >> 8, claimed & 255] : [0x80 | 127, 0, 0, 0, 0, ...uint32(claimed)];
  // A mask of zeros leaves the body as it is.
  return Buffer.concat([Buffer.from([...start, ...length, 0, 0, 0, 0]), Buffer.from(body)]);
}

const uint32 = (n) => [(n >>> 24) & 255, (n >>> 16) & 255, (n >>> 8) & 255, n & 255];
const text = (body, options) => frame(1, body, options);
const CONTINUATION = 0;
const BINARY = 2;
const PING = 9;

/** A TCP connection to the gateway. `ended` resolves when it is closed. */
export class Raw {
  constructor(port, { from } = {}) {
    this.socket = connect({ host: '127.0.0.1', port, localAddress: from }).on('error', () => {});
    this.received = '';
    this.socket.on('data', (data) => (this.received = (this.received + data.toString('latin1')).slice(-65536)));
    this.ended = new Promise((resolve) => this.socket.once('close', resolve));
  }

  get open() {
    return !this.socket.destroyed && !this.socket.readableEnded;
  }

  /** Resolves when the kernel has accepted the data, or when the connection is closed. */
  write(data) {
    return Promise.race([new Promise((resolve) => this.socket.write(data, resolve)), this.ended]);
  }

  /** The status of the last answer. */
  get status() {
    return Number([...this.received.matchAll(/HTTP\/1\.1 (\d+)/g)].at(-1)?.[1]);
  }

  close() {
    this.socket.destroy();
  }
}

/** The id of a polling session that this connection has begun. */
async function sid(raw) {
  await raw.write(head('GET', 'polling'));
  return until(() => /"sid":"([^"]+)"/.exec(raw.received)?.[1] ?? (raw.open ? false : 'none'), 'a session begins');
}

/** Sends `piece` repeatedly while the connection is open, at most `most` bytes. */
async function sendRepeatedly(raw, piece, maxBytes) {
  for (let sent = 0; sent < maxBytes && raw.open; sent += piece.length) await raw.write(piece);
}

async function overWebSocket(raw, ...frames) {
  await raw.write(upgrade());
  for (const bytes of frames) await raw.write(bytes);
}

const polling = (act) => async (raw) => act(raw, await sid(raw));

/** By name. `run(raw)` sends the attack. With `ends`, the gateway must close the connection before its five-second timeout. */
export const ATTACKS = {
  'says nothing': { run: async () => {} },
  'a head that never ends': { run: (raw) => raw.write(head('GET', 'polling').slice(0, -2)) },
  'a head of 400 KB': { ends: true, run: (raw) => sendRepeatedly(raw, Buffer.from(`GET / HTTP/1.1${CRLF}X: ${'x'.repeat(8000)}`), 400_000) },
  'many short headers': { ends: true, run: (raw) => raw.write(`GET / HTTP/1.1${CRLF}${`x: y${CRLF}`.repeat(1500)}${CRLF}`) },
  'a hundred requests at once': { run: (raw) => raw.write(`GET /api/health HTTP/1.1${CRLF}Host: gate${CRLF}${CRLF}`.repeat(100)) },
  'HTTP/2 without being asked': { ends: true, run: (raw) => raw.write(`PRI * HTTP/2.0${CRLF}${CRLF}SM${CRLF}${CRLF}`) },
  'a polling session that never polls': { run: (raw) => raw.write(head('GET', 'polling')) },
  'a polling session that only polls': { run: polling((raw, id) => raw.write(head('GET', `polling&sid=${id}`))) },
  'a POST that never ends': { run: polling((raw, id) => raw.write(`${head('POST', `polling&sid=${id}`, { 'Content-Length': 20_480, 'Content-Type': 'text/plain' })}4${'x'.repeat(20_400)}`)) },
  'a POST of 1 MB': { run: polling((raw, id) => raw.write(head('POST', `polling&sid=${id}`, { 'Content-Length': MB, 'Content-Type': 'text/plain' }))) },
  'a POST of chunks': {
    run: polling(async (raw, id) => {
      await raw.write(head('POST', `polling&sid=${id}`, { 'Transfer-Encoding': 'chunked', 'Content-Type': 'text/plain' }));
      await sendRepeatedly(raw, `1000${CRLF}${'x'.repeat(4096)}${CRLF}`, 200_000);
    }),
  },
  'a WebSocket that says nothing': { run: (raw) => overWebSocket(raw) },
  'an upgrade that is never completed': { run: polling((raw, id) => raw.write(upgrade(`websocket&sid=${id}`))) },
  'an upgrade with a large probe': { ends: true, run: polling(async (raw, id) => { await raw.write(upgrade(`websocket&sid=${id}`)); await raw.write(text('x'.repeat(60_000))); }) },
  'a long message, but for its end': { ends: true, run: (raw) => overWebSocket(raw, text(`4${'x'.repeat(60_000)}`, { claimed: 65_000 })) },
  'a frame that claims the most': { run: (raw) => overWebSocket(raw, text('40', { claimed: 65_536 })) },
  'a frame that claims a gigabyte': { ends: true, run: (raw) => overWebSocket(raw, text('40', { claimed: 1024 * MB })) },
  fragments: { ends: true, run: (raw) => overWebSocket(raw, text('42', { fin: false }), ...Array.from({ length: 60 }, () => frame(CONTINUATION, 'x'.repeat(1000), { fin: false }))) },
  'empty fragments': { ends: true, run: (raw) => overWebSocket(raw, text('42', { fin: false }), ...Array.from({ length: 40 }, () => Buffer.concat(Array.from({ length: 100 }, () => frame(CONTINUATION, '', { fin: false }))))) },
  'compressed frames': { ends: true, run: (raw) => overWebSocket(raw, text('40', { compressed: true })) },
  pings: { ends: true, run: (raw) => overWebSocket(raw, ...Array.from({ length: 40 }, () => Buffer.concat(Array.from({ length: 20 }, () => frame(PING, 'x'.repeat(120)))))) },
  attachments: { ends: true, run: (raw) => overWebSocket(raw, text('451-["e",{"_placeholder":true,"num":0}]'), ...Array.from({ length: 60 }, () => frame(BINARY, 'x'.repeat(1000)))) },
  'CONNECT after CONNECT': { ends: true, run: (raw) => overWebSocket(raw, ...Array.from({ length: 10 }, () => text('40{"token":"x.y.z"}'))) },
  'other namespaces': { ends: true, run: (raw) => overWebSocket(raw, ...Array.from({ length: 10 }, (_, n) => text(`40/admin${n},`))) },
  'events without a session': { ends: true, run: (raw) => overWebSocket(raw, ...Array.from({ length: 100 }, () => text(`42["task:join",{"taskId":"${'x'.repeat(400)}"}]`))) },
  'a token of 60 KB': { ends: true, run: (raw) => overWebSocket(raw, text(`40{"token":"${'x'.repeat(60_000)}"}`)) },
};
