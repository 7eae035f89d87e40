// Attacking connections, from their beginning to their end.
import { Agent, request } from 'node:http';

import { frame, RawSocket } from '../../e2e/support/raw.js';
import { brokenFrame } from './mutator.js';

/** An attacker closes its connection when it gets no answer for this long. */
const ANSWER_TIMEOUT_MS = 20_000;
/** One packet in this many is broken at any byte. The gateway closes most connections after such a packet. */
const BROKEN_ONCE_IN = 120;
const LAST_ACK = 987_654_321;

/** The result of one connection: how many packets were sent, and whether the gateway read all of them. */
const outcome = (sent, wasRead) => ({ sent, wasRead });

/** Connects by WebSocket, sometimes incorrectly, and sends up to `maxPackets` packets. */
export async function attackByWebSocket({ port, dice, packets, token, maxPackets, held }) {
  const raw = new RawSocket(port);
  await raw.waitForText('"sid"');
  if (!dice.once(20)) raw.send(frame(Buffer.from(`40${JSON.stringify({ token })}`)));
  const frames = [];
  const count = 1 + dice.below(maxPackets);
  for (let n = 0; n < count; n += 1) {
    let packet = packets.next();
    if (dice.once(BROKEN_ONCE_IN)) packet = packets.broken(packet);
    frames.push(dice.once(4 * BROKEN_ONCE_IN) ? brokenFrame(dice, packet) : frame(packet));
    if (dice.once(10)) frames.push(frames[dice.below(frames.length)]);
  }
  frames.push(frame(Buffer.from(`42${LAST_ACK}["dashboard:leave"]`)));
  // The bytes are sent in two chunks, split anywhere.
  const bytes = Buffer.concat(frames);
  const cut = dice.below(bytes.length);
  raw.send(bytes.subarray(0, cut));
  raw.send(bytes.subarray(cut));
  const wasRead = await raw.waitForText(`3${LAST_ACK}[`);
  switch (dice.below(5)) {
    case 0: raw.send(frame(Buffer.from('41'))); break;
    case 1: raw.send(frame(Buffer.from('1'))); break;
    case 2: raw.send(frame(Buffer.from([0x03, 0xe8]), { opcode: 8 })); break;
    case 3: raw.socket.resetAndDestroy(); break;
    default:
  }
  // Some connections stay open. The gateway must close them by itself.
  if (held.length < 50 && dice.once(20)) held.push(raw.socket);
  else raw.socket.destroy();
  return outcome(frames.length, wasRead);
}

const agent = new Agent({ keepAlive: true, maxSockets: 64 });

function http(port, method, path, body, headers = {}) {
  return new Promise((resolve) => {
    const sent = request({ port, host: '127.0.0.1', method, path, agent, headers: { ...(body ? { 'content-type': 'text/plain;charset=UTF-8', 'content-length': body.length } : {}), ...headers } }, (answer) => {
      let text = '';
      answer.setEncoding('latin1').on('data', (data) => (text += data)).on('end', () => resolve({ status: answer.statusCode, text })).on('error', () => resolve({ status: 0, text }));
    });
    sent.setTimeout(ANSWER_TIMEOUT_MS, () => sent.destroy());
    sent.on('error', () => resolve({ status: 0, text: '' }));
    sent.end(body);
  });
}

/** Connects by polling and sends all packets in a few requests. */
export async function attackByPolling({ port, dice, packets, token, maxPackets, sids }) {
  const base = '/socket.io/?EIO=4&transport=polling';
  const { text } = await http(port, 'GET', dice.once(30) ? dice.pick([base.replace('4', '3'), '/socket.io/?transport=polling', `${base}&EIO=4`, '/socket.io/?EIO=4&transport=__proto__', `${base}&sid=`, `${base}&sid=${'A'.repeat(16)}`]) : base);
  const sid = /"sid":"([^"]+)"/.exec(text)?.[1];
  if (sid === undefined) return outcome(1, false);
  sids.push(sid);
  if (sids.length > 100) sids.shift();
  const post = (list) => http(port, 'POST', `${base}&sid=${sid}`, Buffer.concat(list.flatMap((packet, n) => (n ? [Buffer.from('\x1e'), packet] : [packet]))));
  const get = () => http(port, 'GET', `${base}&sid=${sid}`);
  await post([Buffer.from(`40${JSON.stringify({ token })}`)]);
  let sent = 0;
  let open = true;
  for (let round = 0; round < 3 && open; round += 1) {
    const list = [];
    for (let n = dice.below(maxPackets / 3); n >= 0; n -= 1) {
      let packet = packets.next();
      if (dice.once(BROKEN_ONCE_IN)) packet = packets.broken(packet);
      if (dice.once(BROKEN_ONCE_IN)) packet = Buffer.from(`b${packet.toString('base64')}`);
      list.push(packet);
    }
    sent += list.length;
    // Some requests use another session's id, a wrong method or transport, or run two at once.
    const tricks = [];
    if (dice.once(5)) tricks.push(http(port, dice.pick(['POST', 'GET', 'PUT', 'DELETE']), `${base}&sid=${dice.pick(sids)}`, Buffer.from('42["x"]')));
    if (dice.once(5)) tricks.push(get(), get());
    if (dice.once(10)) tricks.push(http(port, 'GET', `/socket.io/?EIO=4&transport=websocket&sid=${sid}`));
    if (dice.once(8)) new RawSocket(port, { path: `/socket.io/?EIO=4&transport=websocket&sid=${dice.pick([sid, dice.pick(sids)])}` }).send(frame(Buffer.from(dice.pick(['2probe', '5', '3', '2prob', '40']))), frame(Buffer.from(dice.pick(['5', '2probe', '4', '6']))));
    const [answer] = await Promise.all([post(list), ...tricks]);
    open = answer.status === 200;
  }
  let wasRead = false;
  if (open) {
    await post([Buffer.from(`42${LAST_ACK}["dashboard:leave"]`)]);
    for (let polls = 0; polls < 20 && open && !wasRead; polls += 1) {
      const answer = await get();
      wasRead = answer.text.includes(`43${LAST_ACK}[`);
      open = answer.status === 200;
    }
  }
  if (dice.once(2)) await post([Buffer.from(dice.pick(['1', '41']))]);
  return outcome(sent, wasRead);
}

export const hangUp = () => agent.destroy();
