// The statements of the protocol test suites that the Socket.IO project publishes, as far as a server with tokens and one namespace can
// meet them: https://github.com/socketio/socket.io, docs/engine.io-protocol/v4-test-suite and docs/socket.io-protocol/v5-test-suite.
//
// The server of these suites accepts every client, has the namespace /custom, and sends every message back. The gateway sends no message
// back. Where the suites expect the same message, these tests expect the gateway's answer to it.
//
// | Engine.IO: statement                                     | by polling                   | by WebSocket                         |
// |----------------------------------------------------------|------------------------------|--------------------------------------|
// | a handshake has five fields and the server's heartbeat   | tested                       | tested                               |
// | a handshake with a missing or wrong EIO is refused       | tested                       | tested                               |
// | a handshake with a missing or wrong transport is refused | tested                       | tested                               |
// | a handshake with another method than GET is refused      | tested                       | not a statement                      |
// | one text packet arrives and is answered                  | tested                       | tested with the Socket.IO statements |
// | several text packets in one payload                      | tested                       | not a statement                      |
// | binary packets                                           | tested: the event is refused | tested: the packet is ignored        |
// | a packet of an unknown type closes the session           | tested                       | tested                               |
// | a second request that waits closes the session           | tested                       | not a statement                      |
// | a request that the client breaks off closes the session  | tested                       | not a statement                      |
// | the server pings, and the client answers                 | tested                       | tested                               |
// | a client that answers no ping is disconnected            | tested                       | tested                               |
// | the client closes the session                            | tested                       | tested                               |
// | a session upgrades from polling to a WebSocket           | tested                       | tested                               |
// | after the upgrade, HTTP requests are refused             | tested                       | not a statement                      |
// | after the upgrade, a second WebSocket is closed          | not a statement              | tested                               |
//
// The size of the largest payload in the handshake, 1,000,000 bytes, is a setting of the suites' server. The gateway's own is larger.
//
// | Socket.IO: statement                                     | by WebSocket                                                          |
// |----------------------------------------------------------|-----------------------------------------------------------------------|
// | handshake, heartbeat, close and upgrade as above         | tested with the Engine.IO statements                                  |
// | CONNECT without a payload is accepted                    | tested, with a token in the header                                    |
// | CONNECT with a payload is accepted                       | tested, with a token in the payload                                   |
// | the server sends the payload of CONNECT back             | not tested: the gateway sends no token back                           |
// | CONNECT to /custom without a payload is accepted         | not tested: the gateway has only the namespace /                      |
// | CONNECT to /custom with a payload is accepted            | not tested: the gateway has only the namespace /                      |
// | CONNECT to an unknown namespace is refused               | tested                                                                |
// | an invalid packet in place of CONNECT closes the session | tested                                                                |
// | a client that sends no CONNECT is disconnected           | tested                                                                |
// | DISCONNECT leaves the transport open                     | tested                                                                |
// | DISCONNECT from /custom leaves / connected               | tested: /custom is refused, and / stays connected                     |
// | an event is answered                                     | tested                                                                |
// | an event with an acknowledgement id is acknowledged      | tested                                                                |
// | an event with attachments is answered                    | tested: the gateway refuses it, because no event has binary arguments |
// | an event with attachments is acknowledged                | tested: the acknowledgement contains the refusal                      |
// | a packet of an unknown type closes the session           | tested                                                                |
// | an event whose payload is no array closes the session    | tested                                                                |
// | a wrong acknowledgement id closes the session            | tested                                                                |
import assert from 'node:assert/strict';
import { connect as connectTcp } from 'node:net';
import { after, afterEach, before } from 'node:test';

import WebSocket from 'ws';

import { Gateway, withGateway } from './support/gateway.js';
import { createTask } from './support/http.js';
import { scrape } from './support/metrics.js';
import { test } from './support/scenario.js';
import { member } from './support/tokens.js';
import { until } from './support/until.js';

const POLLING = '/socket.io/?EIO=4&transport=polling';
const WEBSOCKET = '/socket.io/?EIO=4&transport=websocket';
const SEPARATOR = '\x1e';
const CONNECTED = /^40\{"sid":"\w+"\}$/;
const OPEN_FIELDS = ['maxPayload', 'pingInterval', 'pingTimeout', 'sid', 'upgrades'];
const BYTES = Buffer.from([1, 2, 3]);
const REFUSED_BINARY = { code: 'invalid_payload', message: 'Invalid message format', event: 'task:join' };

let gateway;
/** A `CONNECT` packet with a token. */
let connect;
const sockets = new Set();

before(async () => {
  gateway = await Gateway.start({ PING_INTERVAL: '24s', PING_TIMEOUT: '21s' });
  connect = `40${JSON.stringify({ token: await member('alice') })}`;
});
afterEach(() => {
  for (const socket of sockets) socket.terminate();
  sockets.clear();
});
after(() => gateway?.stop());

/** An event with the acknowledgement id `id`. */
const ask = (id) => `42${id}["task:leave",{"taskId":"x"}]`;
const answered = (id) => `43${id}[{"ok":true}]`;
const post = (sid, body, at = gateway) => fetch(`${at.url}${POLLING}&sid=${sid}`, { method: 'POST', body });
const poll = (sid, at = gateway) => fetch(`${at.url}${POLLING}&sid=${sid}`);
/** How many sessions have ended for this reason. */
const ended = async (reason, at = gateway) => (await scrape(at.url)).get('taskcast_connections_ended_total', { reason });
const handshakeOf = (packet) => (assert.equal(packet[0], '0'), JSON.parse(packet.slice(1)));

/** The id of a polling session that has just begun. */
const begin = async (at = gateway) => handshakeOf(await (await fetch(at.url + POLLING)).text()).sid;

/** Sends a payload that must be accepted. */
async function push(sid, body, at) {
  const answer = await post(sid, body, at);
  assert.deepEqual([answer.status, await answer.text()], [200, 'ok']);
}

/** The next payload of a polling session. */
async function pull(sid, at) {
  const answer = await poll(sid, at);
  assert.equal(answer.status, 200);
  return answer.text();
}

/** The id of a polling session that is connected to the namespace. */
async function connected(at) {
  const sid = await begin(at);
  await push(sid, connect, at);
  assert.match(await pull(sid, at), CONNECTED);
  return sid;
}

/** The gateway does not know the session any more. */
const forgotten = async (sid) => assert.equal((await poll(sid)).status, 400);

/** A WebSocket and the packets that it has received. */
class Connection {
  packets = [];
  error = undefined;

  constructor(path, { at = gateway, headers } = {}) {
    this.socket = new WebSocket(at.url.replace('http', 'ws') + path, { headers });
    this.socket.on('message', (data) => this.packets.push(String(data)));
    this.socket.on('error', ({ message }) => (this.error = message));
    sockets.add(this.socket);
  }

  async send(...packets) {
    await until(() => this.socket.readyState === WebSocket.OPEN, 'the WebSocket is open');
    for (const packet of packets) this.socket.send(packet);
  }

  next() {
    return until(() => this.packets.shift(), 'a packet');
  }

  waitForClose() {
    return until(() => this.socket.readyState === WebSocket.CLOSED, () => `the WebSocket is closed; received: ${this.packets}`);
  }
}

/** A session that began with a WebSocket, and is connected to the namespace. */
async function joined() {
  const connection = new Connection(WEBSOCKET);
  const { sid } = handshakeOf(await connection.next());
  await connection.send(connect);
  assert.match(await connection.next(), CONNECTED);
  return { connection, sid };
}

/** A session that began with polling and has upgraded to a WebSocket. */
async function upgraded() {
  const sid = await begin();
  const connection = new Connection(`${WEBSOCKET}&sid=${sid}`);
  await connection.send('2probe');
  assert.equal(await connection.next(), '3probe');
  await connection.send('5', connect);
  // The answer shows that the upgrade is complete.
  assert.match(await connection.next(), CONNECTED);
  return { connection, sid };
}

/** Asserts that the session still answers, and has sent nothing else meanwhile. */
async function assertAlive(connection) {
  await connection.send(ask(99));
  assert.equal(await connection.next(), answered(99));
}

// Engine.IO: handshake

test('polling: the handshake has the fields of the protocol', async () => {
  const answer = await fetch(gateway.url + POLLING);
  assert.equal(answer.status, 200);
  assertHandshake(handshakeOf(await answer.text()), ['websocket']);
});

test('WebSocket: the handshake has the fields of the protocol, and no upgrade', async () => {
  assertHandshake(handshakeOf(await new Connection(WEBSOCKET).next()), []);
});

function assertHandshake(handshake, upgrades) {
  assert.deepEqual(Object.keys(handshake).sort(), OPEN_FIELDS);
  const { sid, maxPayload, ...rest } = handshake;
  assert.ok(typeof sid === 'string' && sid.length > 0);
  assert.ok(maxPayload >= 1_000_000, String(maxPayload));
  assert.deepEqual(rest, { upgrades, pingInterval: 24_000, pingTimeout: 21_000 });
}

const WRONG_QUERIES = {
  'without EIO=4': { error: { code: 5, message: 'Unsupported protocol version' }, queries: (transport) => [`transport=${transport}`, `EIO=abc&transport=${transport}`] },
  'without a known transport': { error: { code: 0, message: 'Transport unknown' }, queries: () => ['EIO=4', 'EIO=4&transport=abc'] },
};
for (const [name, { error, queries }] of Object.entries(WRONG_QUERIES)) {
  test(`polling: a handshake ${name} is refused`, async () => {
    for (const query of queries('polling')) {
      const answer = await fetch(`${gateway.url}/socket.io/?${query}`);
      assert.deepEqual([answer.status, await answer.json()], [400, error], query);
    }
  });

  test(`WebSocket: a handshake ${name} is refused`, async () => {
    for (const query of queries('websocket')) {
      const connection = new Connection(`/socket.io/?${query}`);
      await connection.waitForClose();
      assert.equal(connection.error, 'Unexpected server response: 400', query);
    }
  });
}

test('polling: a handshake with POST or PUT is refused', async () => {
  for (const method of ['POST', 'PUT']) {
    const answer = await fetch(gateway.url + POLLING, { method });
    assert.deepEqual([answer.status, await answer.json()], [400, { code: 2, message: 'Bad handshake method' }], method);
  }
});

// Engine.IO: messages

test('polling: a payload with one text packet is accepted, and its answer is such a payload', async () => {
  const sid = await begin();
  await push(sid, connect);
  assert.match(await pull(sid), CONNECTED);
});

test('polling: a payload with several text packets is accepted, and one payload has all answers in order', async () => {
  const sid = await begin();
  const names = ['a', 'b', 'c'];
  await push(sid, names.map((name) => `40/${name},`).join(SEPARATOR));
  assert.equal(await pull(sid), names.map((name) => `44/${name},{"message":"Invalid namespace"}`).join(SEPARATOR));
});

test('polling: an event with a binary packet in the same payload is refused, and the session continues', async () => {
  const sid = await connected();
  const event = '451-7["task:join",{"_placeholder":true,"num":0}]';
  await push(sid, [event, `b${BYTES.toString('base64')}`].join(SEPARATOR));
  assert.equal(await pull(sid), `437${JSON.stringify([{ ok: false, error: REFUSED_BINARY }])}`);
  await push(sid, ask(8));
  assert.equal(await pull(sid), answered(8));
});

test('WebSocket: a binary packet without an event is ignored, and the session continues', async () => {
  const { connection } = await joined();
  await connection.send(BYTES);
  await assertAlive(connection);
});

test('polling: a packet of an unknown type is refused and closes the session', async () => {
  const sid = await connected();
  assert.equal((await post(sid, 'abc')).status, 400);
  await forgotten(sid);
});

test('WebSocket: a packet of an unknown type closes the session', async () => {
  const { connection } = await joined();
  await connection.send('abc');
  await connection.waitForClose();
});

test('polling: a second request that waits is refused and closes the session, and the first one gets the close packet', async () => {
  const sid = await begin();
  // Either request may arrive first.
  const answers = await Promise.all([poll(sid), poll(sid)]);
  const [first, second] = answers.sort((a, b) => a.status - b.status);
  assert.deepEqual([first.status, await first.text(), second.status], [200, '1', 400]);
  await forgotten(sid);
});

test('polling: a client that breaks off its waiting request ends the session', () => withGateway({}, async (at) => {
  const connections = async () => (await at.health()).websocket.connections;
  await until(async () => {
    const before = await connections();
    const sid = await connected(at);
    const request = connectTcp({ port: at.port, host: '127.0.0.1' }).on('error', () => {});
    await new Promise((resolve) => request.write(`GET ${POLLING}&sid=${sid} HTTP/1.1\r\nHost: 127.0.0.1:${at.port}\r\n\r\n`, resolve));
    // The gateway reads the request before it answers this one. If it does not, it sees the request and its end at once: the next try is another.
    assert.equal(await connections(), before + 1);
    request.destroy();
    await until(async () => (await connections()) === before, 'the session ends', 2000);
    return (await poll(sid, at)).status === 400;
  }, 'a session that ends with its request');
}));

// Engine.IO: heartbeat

test('polling: the gateway sends pings and accepts the answers', () => withGateway({ PING_INTERVAL: '300ms' }, async (at) => {
  const sid = await begin(at);
  // A client without a session in the namespace would be disconnected after a while.
  await push(sid, connect, at);
  const others = [];
  for (let pings = 0; pings < 3;) {
    for (const packet of (await pull(sid, at)).split(SEPARATOR)) {
      if (packet === '2') await push(sid, '3', at);
      if (packet === '2') pings += 1;
      else others.push(packet);
    }
  }
  assert.equal(others.length, 1);
  assert.match(others[0], CONNECTED);
}));

test('WebSocket: the gateway sends pings and accepts the answers', () => withGateway({ PING_INTERVAL: '300ms' }, async (at) => {
  const connection = new Connection(WEBSOCKET, { at });
  await connection.send(connect);
  const others = [];
  for (let pings = 0; pings < 3;) {
    const packet = await connection.next();
    if (packet === '2') await connection.send('3');
    if (packet === '2') pings += 1;
    else others.push(packet);
  }
  assert.equal(others.length, 2);
  handshakeOf(others[0]);
  assert.match(others[1], CONNECTED);
}));

test('polling: a client that answers no ping is disconnected', () => withGateway({ PING_INTERVAL: '300ms', PING_TIMEOUT: '200ms' }, async (at) => {
  const sid = await begin(at);
  await until(async () => (await ended('heartbeat_timeout', at)) === 1, 'the session ends');
  assert.equal((await poll(sid, at)).status, 400);
}));

test('WebSocket: a client that answers no ping is disconnected', () => withGateway({ PING_INTERVAL: '300ms', PING_TIMEOUT: '200ms' }, async (at) => {
  const connection = new Connection(WEBSOCKET, { at });
  await connection.waitForClose();
  assert.equal(connection.packets[1], '2');
  await until(async () => (await ended('heartbeat_timeout', at)) === 1, 'the session ends');
}));

// Engine.IO: close

test('polling: a client that closes the session gets a noop on its waiting request, and its id is unknown afterwards', async () => {
  const answer = await until(async () => {
    const sid = await begin();
    const [waiting] = await Promise.all([poll(sid), push(sid, '1')]);
    await forgotten(sid);
    // The close packet may come before the request that is to wait.
    return waiting.status === 200 && waiting.text();
  }, 'a request that waits');
  assert.equal(answer, '6');
});

test('WebSocket: a client that sends a close packet is disconnected', async () => {
  const { connection } = await joined();
  await connection.send('1');
  await connection.waitForClose();
});

// Engine.IO: upgrade

test('a session upgrades to a WebSocket: the probe is answered, the waiting request gets a noop, and messages move to the WebSocket', async () => {
  const sid = await begin();
  const waiting = pull(sid);
  const connection = new Connection(`${WEBSOCKET}&sid=${sid}`);
  await connection.send('2probe');
  assert.equal(await connection.next(), '3probe');
  assert.equal(await waiting, '6');
  await connection.send('5', connect);
  assert.match(await connection.next(), CONNECTED);
  await assertAlive(connection);
});

for (const [name, session] of Object.entries({ 'has upgraded to a WebSocket': upgraded, 'began with a WebSocket': joined })) {
  test(`HTTP requests for a session that ${name} are refused, and the session continues`, async () => {
    const { connection, sid } = await session();
    for (const answer of [await poll(sid), await post(sid, ask(1))]) {
      assert.deepEqual([answer.status, await answer.json()], [400, { code: 3, message: 'Bad request' }]);
    }
    await assertAlive(connection);
  });
}

test('a second WebSocket for a session that has upgraded is closed, and the session continues', async () => {
  const { connection, sid } = await upgraded();
  const second = new Connection(`${WEBSOCKET}&sid=${sid}`);
  await second.waitForClose();
  assert.deepEqual(second.packets, []);
  await assertAlive(connection);
});

// Socket.IO: connect

test('a CONNECT without a payload is accepted when the header has a token', async () => {
  const connection = new Connection(WEBSOCKET, { headers: { authorization: `Bearer ${await member('alice')}` } });
  handshakeOf(await connection.next());
  await connection.send('40');
  assert.match(await connection.next(), CONNECTED);
  await assertAlive(connection);
});

test('a CONNECT with a token in its payload is accepted', async () => {
  const { connection } = await joined();
  await assertAlive(connection);
});

test('a CONNECT to an unknown namespace is refused, and the client can still connect', async () => {
  const connection = new Connection(WEBSOCKET);
  handshakeOf(await connection.next());
  await connection.send('40/elsewhere', connect);
  assert.equal(await connection.next(), '44/elsewhere,{"message":"Invalid namespace"}');
  assert.match(await connection.next(), CONNECTED);
});

test('an invalid packet in place of CONNECT closes the session', async () => {
  const before = await ended('malformed');
  const connection = new Connection(WEBSOCKET);
  await connection.send('4abc');
  await connection.waitForClose();
  await until(async () => (await ended('malformed')) === before + 1, 'it is the reason of the end');
});

test('a client that sends no CONNECT is disconnected, without a ping before it', async () => {
  const connection = new Connection(WEBSOCKET);
  await connection.waitForClose();
  assert.equal(connection.packets.length, 1);
  handshakeOf(connection.packets[0]);
});

// Socket.IO: disconnect

test('a DISCONNECT ends the session and leaves the transport open, so that the client can connect again', async () => {
  const { connection } = await joined();
  await connection.send('41', ask(1), connect);
  // The event has no answer, because there was no session when it arrived.
  assert.match(await connection.next(), CONNECTED);
  await assertAlive(connection);
});

test('a CONNECT to another namespace and its DISCONNECT leave the client connected to the main namespace', async () => {
  const { connection } = await joined();
  await connection.send('40/custom', '41/custom');
  assert.equal(await connection.next(), '44/custom,{"message":"Invalid namespace"}');
  await assertAlive(connection);
});

// Socket.IO: messages

test('an event is answered with an event', async () => {
  const { taskId } = await createTask(gateway.url, await member('alice'));
  const { connection } = await joined();
  await connection.send(`42["task:join",${JSON.stringify({ taskId })}]`);
  const packet = await connection.next();
  assert.equal(packet.slice(0, 2), '42');
  const [event, state] = JSON.parse(packet.slice(2));
  assert.deepEqual([event, state._id], ['task:state', taskId]);
});

test('an event with an acknowledgement id is acknowledged with this id', async () => {
  const { connection } = await joined();
  await connection.send(ask(12));
  assert.equal(await connection.next(), answered(12));
});

for (const [name, id, refusal] of [
  ['an event with attachments is refused with an event', '', `42${JSON.stringify(['error', REFUSED_BINARY])}`],
  ['an event with attachments and an acknowledgement id is refused with its acknowledgement', 34, `4334${JSON.stringify([{ ok: false, error: REFUSED_BINARY }])}`],
]) {
  test(`${name}, and the session continues`, async () => {
    const { connection } = await joined();
    const places = [0, 1].map((num) => ({ _placeholder: true, num }));
    await connection.send(`452-${id}${JSON.stringify(['task:join', ...places])}`, BYTES, BYTES);
    assert.equal(await connection.next(), refusal);
    await assertAlive(connection);
  });
}

const INVALID = { 'an unknown type': '4abc', 'a payload that is no array': '42{}', 'a wrong acknowledgement id': '42abc["task:leave",{"taskId":"x"}]' };
for (const [name, packet] of Object.entries(INVALID)) {
  test(`a packet with ${name} closes the session`, async () => {
    const { connection } = await joined();
    await connection.send(packet);
    await connection.waitForClose();
    assert.deepEqual(connection.packets, []);
  });
}
