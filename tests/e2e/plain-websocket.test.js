// The plain WebSocket `/ws`: tokens, messages, close codes, and clients that misbehave.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { after, before } from 'node:test';

import WebSocket from 'ws';

import { Gateway, withGateway } from './support/gateway.js';
import { api, createTask, patchTask } from './support/http.js';
import { signer } from './support/key-server.js';
import { scrape } from './support/metrics.js';
import { RawSocket, frame } from './support/raw.js';
import { freePort } from './support/ports.js';
import { test } from './support/scenario.js';
import { member, now, pipeline, sign } from './support/tokens.js';
import { once, until } from './support/until.js';

const PROTOCOL = 'taskcast.v1';
const EVENT_ID = /^[0-9a-f]{16}-[0-9a-f]{6}-[0-9a-f]{6}$/;
const BINARY = 2;
const CONTINUATION = 0;

let gateway;
let alice;
let task;

before(async () => {
  gateway = await Gateway.start({ JOIN_RATE_PER_SECOND: '1000' });
  alice = await member('alice');
  task = await createTask(gateway.url, alice, { title: 'a task' });
});
after(() => gateway?.stop());

/** A client that records messages, and the code with which its connection was closed. */
class Plain {
  received = [];
  closed = null;
  #next = 1000;

  constructor({ at = gateway, path = '/ws', protocols = [], ...options } = {}) {
    this.ws = new WebSocket(`${at.url.replace('http', 'ws')}${path}`, protocols, options);
    this.ws.on('message', (data, isBinary) => {
      assert.equal(isBinary, false);
      this.received.push(JSON.parse(data));
    });
    this.ws.on('close', (code, reason) => (this.closed = { code, reason: String(reason) }));
    this.ws.on('unexpected-response', (request, response) => {
      this.status = response.statusCode;
      let body = '';
      response.on('data', (data) => (body += data)).on('end', () => (this.body = JSON.parse(body)));
    });
    this.ws.on('error', () => {});
    open.push(this.ws);
  }

  /** Connects with a token in the header, and waits for `init`. */
  static async of(token, options = {}) {
    const client = new Plain({ headers: { authorization: `Bearer ${token}` }, ...options });
    await client.first('init');
    return client;
  }

  send(message) {
    this.ws.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  /** Sends a message, and returns the payload of its acknowledgement. */
  async ask(type, payload, id = (this.#next += 1)) {
    this.send({ type, payload, id });
    return (await until(() => this.received.find((one) => one.type === 'ack' && one.id === id), () => `an ack: ${this.shown()}`)).payload;
  }

  first(type) {
    return until(() => this.received.find((one) => one.type === type), () => `${type}: ${this.shown()}`);
  }

  async code() {
    return (await until(() => this.closed, () => `closed: ${this.shown()}`)).code;
  }

  shown() {
    return JSON.stringify([this.received.slice(-5), this.closed, this.status]).slice(0, 800);
  }
}
const open = [];
after(() => open.forEach((ws) => ws.terminate()));

const opened = async (client) => (client.ws.readyState === WebSocket.OPEN ? undefined : once(client.ws, 'open'));
const title = (text) => pipeline().then((writer) => patchTask(gateway.url, writer, task.taskId, { title: text }));

test('init is the first message, and tells who the client is', async () => {
  const before = Date.now();
  const client = await Plain.of(await member('alice'));
  const [{ payload, ...init }] = client.received;
  assert.deepEqual(Object.keys(init).sort(), ['timestamp', 'type']);
  assert.ok(init.timestamp >= before - 1000 && init.timestamp <= Date.now() + 1000, init.timestamp);
  const { eventId, ...rest } = payload;
  assert.match(eventId, EVENT_ID);
  assert.deepEqual(rest, { batch: null, events: [], live: {}, user: { userId: 'alice', name: 'alice of acme', orgId: 'acme' } });
});

test('a token comes in the header, in a subprotocol, or in the first message; the answer never names it', async () => {
  const header = await Plain.of(alice);
  assert.equal(header.ws.protocol, '');
  for (const protocols of [[PROTOCOL, `bearer.${alice}`], [`bearer.${alice}`, PROTOCOL]]) {
    const client = new Plain({ protocols });
    const [response] = await new Promise((resolve) => client.ws.once('upgrade', (...args) => resolve(args)));
    assert.equal(response.headers['sec-websocket-protocol'], PROTOCOL);
    assert.ok(!JSON.stringify(response.rawHeaders).includes(alice));
    await client.first('init');
  }
  for (const token of [alice, `Bearer ${alice}`]) {
    const client = new Plain({ protocols: [PROTOCOL] });
    await opened(client);
    client.send({ type: 'auth', payload: { token }, id: 'a "quoted" id' });
    await client.first('ack');
    assert.deepEqual(client.received.map(({ type }) => type), ['init', 'ack']);
    assert.deepEqual(client.received[1], { type: 'ack', id: 'a "quoted" id', payload: { ok: true } });
  }
  const silent = new Plain();
  await opened(silent);
  silent.send({ type: 'auth', payload: { token: alice } });
  await silent.first('init');
});

test('tokens that are not accepted close with 4401, and a refusal says why', async () => {
  const expired = await member('alice', 'acme', { exp: now() - 1 });
  const refused = (code) => ({ code, event: null });
  for (const [name, options, message, expected] of [
    ['an expired header', { headers: { authorization: `Bearer ${expired}` } }, null, refused('token_expired')],
    ['an invalid header', { headers: { authorization: 'Bearer x.y.z' } }, null, refused('unauthorized')],
    ['another scheme', { headers: { authorization: 'Basic eDp5' } }, null, refused('unauthorized')],
    ['an expired subprotocol', { protocols: [PROTOCOL, `bearer.${expired}`] }, null, refused('token_expired')],
    ['an empty subprotocol', { headers: { 'sec-websocket-protocol': 'bearer.' } }, null, refused('unauthorized')],
    ['two tokens', { headers: { 'sec-websocket-protocol': `bearer.${alice}, bearer.${alice}` } }, null, refused('unauthorized')],
    ['an invalid message', {}, { type: 'auth', payload: { token: 'x.y.z' } }, refused('unauthorized')],
    ['no token in it', {}, { type: 'auth' }, refused('unauthorized')],
    ['a token that is no text', {}, { type: 'auth', payload: { token: { $ne: null } } }, refused('unauthorized')],
    ['another message first', {}, { type: 'task:join', payload: { taskId: 'x' } }, refused('unauthorized')],
    ['a ping first', {}, { type: 'ping' }, refused('unauthorized')],
  ]) {
    const client = new Plain(options);
    if (message) {
      await opened(client);
      client.send(message);
    }
    assert.equal(await client.code(), 4401, name);
    assert.deepEqual(client.received.map(({ type, payload: { code, event } }) => [type, { code, event }]), [['refused', expected]], name);
  }
  const asked = new Plain();
  await opened(asked);
  asked.send({ type: 'auth', payload: { token: expired }, id: 1 });
  assert.equal(await asked.code(), 4401);
  const [{ type, id, payload }] = asked.received;
  assert.deepEqual([type, id, payload.ok, payload.error.code, payload.error.event], ['ack', 1, false, 'token_expired', 'auth']);
  assert.ok(!gateway.output.includes('x.y.z') && !gateway.output.includes(expired), 'the log shows no token');
});

test('a client that sends no token within 5 s is closed with 4408', async () => {
  const client = new Plain();
  await opened(client);
  const begun = Date.now();
  assert.equal(await client.code(), 4408);
  assert.ok(Date.now() - begun > 4000, `after ${Date.now() - begun} ms`);
});

test('a token in the query is refused before the upgrade, and so are other origins', async () => {
  for (const name of ['token', 'access_token', 'auth', 'jwt']) {
    const client = new Plain({ path: `/ws?${name}=${alice}` });
    await until(() => client.body, 'an answer');
    assert.deepEqual([client.status, client.body.error.code], [400, 'token_in_query']);
  }
  const foreign = new Plain({ origin: 'https://evil.example', headers: { authorization: `Bearer ${alice}` } });
  await until(() => foreign.body, 'an answer');
  assert.deepEqual([foreign.status, foreign.body.error.code], [403, 'forbidden_origin']);
  const get = await fetch(`${gateway.url}/ws`);
  assert.deepEqual([get.status, get.headers.get('upgrade'), get.headers.get('sec-websocket-version'), (await get.json()).error.code], [426, 'websocket', '13', 'upgrade_required']);
  const post = await fetch(`${gateway.url}/ws`, { method: 'POST', body: 'x' });
  assert.deepEqual([post.status, post.headers.get('allow')], [405, 'GET']);
});

test('FEATURE_PLAIN_WEBSOCKET=false closes with 4403, and Socket.IO does not change', () => withGateway({ FEATURE_PLAIN_WEBSOCKET: 'false' }, async (off) => {
  const client = new Plain({ at: off, headers: { authorization: `Bearer ${alice}` } });
  assert.equal(await client.code(), 4403);
  assert.deepEqual(client.received.map(({ type, payload }) => [type, payload.code]), [['refused', 'feature_disabled']]);
  assert.equal((await fetch(`${off.url}/socket.io/?EIO=4&transport=polling`)).status, 200);
}));

test('every event has its type, its payload, a timestamp and an eventId', async () => {
  const client = await Plain.of(alice);
  assert.deepEqual(await client.ask('task:join', { taskId: task.taskId }), { ok: true });
  const state = await client.first('task:state');
  assert.deepEqual(Object.keys(state).sort(), ['eventId', 'payload', 'timestamp', 'type']);
  assert.deepEqual([state.payload.taskId, state.payload.eventId], [task.taskId, state.eventId]);
  const joined = await client.ask('dashboard:join');
  assert.deepEqual(Object.keys(joined).sort(), ['counts', 'eventId', 'ok', 'tasks']);
  const dashboard = await client.first('dashboard:state');
  assert.deepEqual(Object.keys(dashboard.payload).sort(), ['counts', 'eventId', 'tasks'], 'an object, whatever DASHBOARD_STATE_SHAPE says');
  assert.ok(dashboard.payload.tasks.some(({ taskId }) => taskId === task.taskId));
  await title('renamed');
  const updated = await client.first('task:updated');
  assert.deepEqual(updated.payload.changed, { title: 'renamed' });
  assert.equal(updated.timestamp, Date.parse(updated.payload.occurredAt), 'the time of the change');
  assert.equal(updated.eventId, updated.payload.eventId);
  const other = await Plain.of(await member('bob'));
  await other.ask('task:join', { taskId: task.taskId });
  await title('renamed again');
  const last = ({ received }) => received.findLast(({ type }) => type === 'task:updated');
  await until(() => last(other) && last(client).payload.changed.title === 'renamed again', 'both have it');
  assert.deepEqual(last(other), last(client));
});

test('a message with an id gets an ack with this id; without one, a refusal is a message of its own', async () => {
  const client = await Plain.of(alice);
  for (const id of [1, -1.5, 0, '', 'x', '\u{1f600}', 'y'.repeat(126)]) {
    assert.deepEqual(await client.ask('task:leave', { taskId: 'x' }, id), { ok: true }, String(id));
  }
  const refusal = await client.ask('task:join', { taskId: 7 });
  assert.deepEqual(refusal, { ok: false, error: { code: 'invalid_payload', message: 'taskId must be a non-empty string', event: 'task:join' } });
  client.received.length = 0;
  client.send({ type: 'task:join', payload: { taskId: 7 } });
  assert.deepEqual(await client.first('refused'), { type: 'refused', payload: refusal.error });
  for (const type of ['nothing', 'error', 'init', 'ack', 'refused', 'constructor', '__proto__']) {
    assert.deepEqual((await client.ask(type, {})).error, { code: 'invalid_payload', message: 'Unknown event', event: null }, type);
  }
  const again = await client.ask('auth', { token: alice });
  assert.deepEqual([again.error.code, again.error.event], ['conflict', 'auth']);
  assert.equal(client.closed, null);
});

test('ping frames get pong frames, and ping messages get pong messages', async () => {
  const client = await Plain.of(alice);
  const answered = new Promise((resolve) => client.ws.once('pong', (data) => resolve(String(data))));
  client.ws.ping('hello');
  assert.equal(await answered, 'hello');
  client.send({ type: 'ping' });
  assert.deepEqual(await client.first('pong'), { type: 'pong' });
  assert.deepEqual(await client.ask('ping'), { ok: true });
});

test('the heartbeat is a ping frame; a client that does not answer is closed', () => withGateway({ PING_INTERVAL_WS: '300ms' }, async (quick) => {
  const client = await Plain.of(alice, { at: quick });
  let pings = 0;
  client.ws.on('ping', () => (pings += 1));
  await until(() => pings > 3, 'pings');
  assert.equal(client.closed, null);
  const mute = await Plain.of(alice, { at: quick, autoPong: false });
  const begun = Date.now();
  assert.equal(await mute.code(), 1006);
  assert.ok(Date.now() - begun > 8000, 'it had 10 s');
  assert.equal(client.closed, null);
}));

test('malformed messages close with 4400', async () => {
  for (const text of ['', 'x', '[]', '["ping"]', '42["task:join",{}]', '{}', '{"type":1}', '{"type":"a","type":"b"}', '{"type":"ping","id":{}}', '{"type":"ping","id":true}',
    `{"type":"ping","id":"${'x'.repeat(127)}"}`, '{"type":"ping"} {"type":"ping"}']) {
    const client = await Plain.of(alice);
    client.send(text);
    assert.equal(await client.code(), 4400, text);
    const early = new Plain();
    await opened(early);
    early.send(text);
    assert.equal(await early.code(), 4400, `before a token: ${text}`);
  }
  const binary = await Plain.of(alice);
  binary.ws.send(Buffer.from('{"type":"ping"}'));
  assert.equal(await binary.code(), 4400);
});

test('deeply nested JSON is refused, and the connection goes on', async () => {
  const client = await Plain.of(alice);
  for (const depth of [200, 5000]) {
    const nested = `${'['.repeat(depth)}${']'.repeat(depth)}`;
    client.send(`{"type":"task:join","payload":{"taskId":${nested}},"id":${depth}}`);
    const { payload } = await until(() => client.received.find(({ id }) => id === depth), 'an answer');
    assert.equal(payload.error.code, 'invalid_payload');
    client.send(`{"other":${nested},"type":"ping"}`);
    await client.first('pong');
  }
  assert.equal(client.closed, null);
});

test('messages that are too large close with 4413', async () => {
  const large = (bytes) => JSON.stringify({ type: 'task:join', payload: { taskId: 'x'.repeat(bytes) } });
  const fits = await Plain.of(alice);
  fits.send(large(60_000));
  assert.equal((await fits.first('refused')).payload.code, 'invalid_payload');
  for (const bytes of [70_000, 2_000_000]) {
    const client = await Plain.of(alice);
    client.send(large(bytes));
    assert.equal(await client.code(), 4413, String(bytes));
  }
  const early = new Plain();
  await opened(early);
  early.send(JSON.stringify({ type: 'auth', payload: { token: 'x'.repeat(40_000) } }));
  assert.equal(await early.code(), 4413);
  const long = new Plain();
  await opened(long);
  long.send(JSON.stringify({ type: 'auth', payload: { token: 'x'.repeat(15_000) } }));
  assert.equal(await long.code(), 4401, 'it is read, and refused');
});

test('a client that floods is closed with 4429, and other clients are not', async () => {
  const witness = await Plain.of(await member('witness'));
  const client = await Plain.of(await member('flood'));
  const bytes = JSON.stringify({ type: 'task:leave', payload: { taskId: 'x' } });
  for (let n = 0; n < 200 && !client.closed; n += 1) {
    for (let m = 0; m < 200; m += 1) client.ws.send(bytes);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(await client.code(), 4429);
  assert.ok(client.received.some(({ type, payload }) => type === 'refused' && payload.code === 'rate_limited' && payload.retryAfterMs > 0));
  assert.deepEqual(await witness.ask('ping'), { ok: true });
});

test('the oldest connection of a user with too many is closed with 4429', () => withGateway({ MAX_CONNECTIONS_PER_USER: '2' }, async (small) => {
  const clients = [];
  for (let n = 0; n < 3; n += 1) clients.push(await Plain.of(alice, { at: small }));
  assert.equal(await clients[0].code(), 4429);
  assert.deepEqual(clients.map(({ closed }) => closed === null), [false, true, true]);
}));

test('the end of the token closes with 4401, after the queued messages and the reason', async () => {
  const client = await Plain.of(await member('short', 'acme', { exp: now() + 2 }));
  await client.ask('dashboard:join');
  assert.equal(await client.code(), 4401);
  const { type, payload } = client.received.at(-1);
  assert.deepEqual([type, payload.code, payload.event], ['refused', 'token_expired', null]);
});

test('a user whom an operator disconnects is closed with 4401, and the old token is refused', async () => {
  const token = await member('eve');
  const client = await Plain.of(token);
  const admin = await sign({ sub: 'ops', scope: 'admin' });
  assert.equal((await api(gateway.url, 'POST', '/api/admin/disconnect', { token: admin, body: { userId: 'eve' } })).status, 200);
  assert.equal(await client.code(), 4401);
  assert.equal(client.received.at(-1).payload.code, 'unauthorized');
  const again = new Plain({ headers: { authorization: `Bearer ${token}` } });
  assert.equal(await again.code(), 4401);
});

test('a node that shuts down closes with 1001', async () => {
  const node = await Gateway.start();
  const clients = await Promise.all([1, 2].map(() => Plain.of(alice, { at: node })));
  const idle = new Plain({ at: node });
  await opened(idle);
  node.child.kill('SIGTERM');
  for (const client of [...clients, idle]) assert.equal(await client.code(), 1001);
  assert.equal((await node.child.exited).code, 0);
});

test('a close frame of the client is answered with the same code', async () => {
  for (const code of [1000, 1001, 4000]) {
    const client = await Plain.of(alice);
    client.ws.close(code);
    assert.equal(await client.code(), code);
  }
});

test('a slow client is disconnected, and others are not', () => withGateway({ SEND_QUEUE: '64', SLOW_CLIENT_TIMEOUT: '1s', JOIN_RATE_PER_SECOND: '1000' }, async (small) => {
  const { taskId } = await createTask(small.url, alice);
  const writer = await pipeline();
  const [witness, slow] = [await Plain.of(await member('witness'), { at: small }), await Plain.of(await member('slow'), { at: small })];
  await Promise.all([witness, slow].map((client) => client.ask('task:join', { taskId })));
  slow.ws._socket.pause();
  const connections = async () => (await small.health()).websocket.connections;
  let n = 0;
  await until(async () => {
    await patchTask(small.url, writer, taskId, { event: { eventType: 'step', payload: { n: (n += 1), filling: 'x'.repeat(60_000) } } });
    return (await connections()) === 1;
  }, 'the slow client is disconnected', 60_000);
  slow.ws._socket.resume();
  assert.ok([1013, 1006].includes(await slow.code()), 'a client that does not read may see 1006');
  await until(() => witness.received.filter(({ type }) => type === 'task:event_added').length === n, 'the witness has everything');
  assert.equal(witness.closed, null);
}));

test('metrics count plain WebSockets under a label of their own', () => withGateway({}, async (fresh) => {
  const before = await scrape(fresh.url);
  const client = await Plain.of(alice, { at: fresh });
  const refused = new Plain({ at: fresh, headers: { authorization: 'Bearer x.y.z' } });
  await refused.code();
  const page = await until(async () => {
    const page = await scrape(fresh.url);
    return page.get('taskcast_connections', { transport: 'plain_websocket' }) === 1 && page;
  }, 'one connection');
  assert.equal(page.get('taskcast_connections', { transport: 'websocket' }), 0);
  assert.equal(page.since(before, 'taskcast_handshakes_total', { outcome: 'accepted' }), 1);
  assert.equal(page.since(before, 'taskcast_handshakes_total', { outcome: 'unauthorized' }), 1);
  assert.equal(page.since(before, 'taskcast_http_requests_total', { route: '/ws', method: 'GET', status: '1xx' }), 2);
  client.ws.close();
}));

/** Frames that no library sends. The connection has to end, or to go on; other clients are not affected. */
const ODD = {
  'an unmasked frame': [frame('{"type":"ping"}', { masked: false })],
  'a reserved bit': [frame('{"type":"ping"}', { rsv: 4 })],
  'an unknown opcode': [frame('x', { opcode: 7 })],
  'a fragmented ping frame': [frame('x', { opcode: 9, fin: false })],
  'a long ping frame': [frame('x'.repeat(126), { opcode: 9 })],
  'a continuation of nothing': [frame('x', { opcode: CONTINUATION })],
  'a text inside a fragmented text': [frame('{', { fin: false }), frame('{"type":"ping"}')],
  'a text that is not UTF-8': [frame(Buffer.from([0xff, 0xfe]))],
  'a binary message in fragments': [frame('x', { opcode: BINARY, fin: false }), frame('y', { opcode: CONTINUATION })],
  'a frame that claims a gigabyte': [frame('x', { length: 2 ** 30 })],
  'a close frame of one byte': [frame('x', { opcode: 8 })],
};
for (const [name, frames] of Object.entries(ODD)) {
  test(`${name} ends the connection, with and without a session`, async () => {
    const witness = await Plain.of(await member('witness'));
    for (const headers of ['', `Authorization: Bearer ${alice}\r\n`]) {
      const raw = new RawSocket(gateway.port, { path: '/ws', headers });
      assert.ok(await raw.waitForText(headers ? '"init"' : '101'));
      raw.send(...frames);
      assert.ok(await raw.waitForClose(4000), 'before the timeout');
    }
    assert.deepEqual(await witness.ask('ping'), { ok: true });
  });
}

test('a text in many fragments, with ping frames between them, is one message', async () => {
  const raw = new RawSocket(gateway.port, { path: '/ws', headers: `Authorization: Bearer ${alice}\r\n` });
  assert.ok(await raw.waitForText('"init"'));
  const text = '{"type":"ping","id":"in pieces"}';
  raw.send(...[...text].flatMap((letter, n) => [
    frame(letter, { opcode: n === 0 ? 1 : CONTINUATION, fin: n === text.length - 1 }), frame('', { opcode: 9 }),
  ]));
  assert.ok(await raw.waitForText('"in pieces"'));
  raw.socket.destroy();
});

test('messages behind the upgrade request, and messages behind the token, are handled in order', async () => {
  const message = (value) => frame(JSON.stringify(value));
  const behind = Buffer.concat([message({ type: 'auth', payload: { token: alice }, id: 'first' }), message({ type: 'task:leave', payload: { taskId: 'x' }, id: 'second' })]);
  const raw = new RawSocket(gateway.port, { path: '/ws', behind });
  assert.ok(await raw.waitForText('"second"'));
  const at = ['"init"', '"first"', '"second"'].map((word) => raw.text.indexOf(word));
  assert.ok(at[0] >= 0 && at[0] < at[1] && at[1] < at[2], raw.text);
  raw.socket.destroy();
});

test('messages that come while the key of the token is fetched are handled after init, in order', async () => {
  const key = await signer('ES256', 'late');
  const held = [];
  const keys = createServer((_request, response) => held.push(response)).listen(0, '127.0.0.1');
  await once(keys, 'listening');
  const node = new Gateway(await freePort(), { JWT_SECRET: undefined, JWT_JWKS_URL: `http://127.0.0.1:${keys.address().port}/keys` });
  node.spawn();
  try {
    await until(() => held.length > 0, 'the key server is asked');
    await until(() => node.health(), 'the node answers');
    const waiting = async () => (await scrape(node.url)).get('taskcast_tokens_waiting');
    const token = await key.token();
    const clients = [new Plain({ at: node, headers: { authorization: `Bearer ${token}` } }), new Plain({ at: node }), new Plain({ at: node, protocols: [PROTOCOL, `bearer.${token}`] })];
    for (const client of clients) await opened(client);
    clients[1].send({ type: 'auth', payload: { token }, id: 'auth' });
    for (const client of clients) {
      for (const id of [1, 2]) client.send({ type: 'task:leave', payload: { taskId: 'x' }, id });
    }
    await until(async () => (await waiting()) === 3, 'three tokens wait');
    // One client vanishes, and one sends too much.
    clients[2].ws.terminate();
    await until(async () => (await waiting()) === 2, 'two tokens wait');
    const flood = new Plain({ at: node, headers: { authorization: `Bearer ${token}` } });
    await opened(flood);
    for (let n = 0; n < 300; n += 1) flood.send('{"type":"ping"}');
    assert.equal(await flood.code(), 4429);
    assert.deepEqual(clients.map(({ received }) => received), [[], [], []]);
    held.forEach((response) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ keys: [key.jwk] })));
    for (const client of clients.slice(0, 2)) {
      await until(() => client.received.some(({ id }) => id === 2), () => `the last answer: ${client.shown()}`);
    }
    const came = (client) => client.received.map(({ type, id }) => id ?? type);
    assert.deepEqual(came(clients[0]), ['init', 1, 2]);
    assert.deepEqual(came(clients[1]), ['init', 'auth', 1, 2]);
  } finally {
    await node.stop();
    keys.closeAllConnections();
    keys.close();
  }
});

test('what a client without a token may send is limited', async () => {
  for (const frames of [
    Array.from({ length: 400 }, () => frame('x'.repeat(100), { opcode: 9 })),
    [frame('{', { fin: false }), ...Array.from({ length: 60 }, () => frame(' '.repeat(1000), { opcode: CONTINUATION, fin: false }))],
    Array.from({ length: 6000 }, (_, n) => frame('', { opcode: n === 0 ? 1 : CONTINUATION, fin: false })),
  ]) {
    const raw = new RawSocket(gateway.port, { path: '/ws' });
    assert.ok(await raw.waitForText('101'));
    raw.send(...frames);
    assert.ok(await raw.waitForClose(4000), 'before the timeout');
  }
});

test('nothing is handled after the close frame, or after the server has decided to close', async () => {
  const count = async () => (await scrape(gateway.url)).get('taskcast_client_events_total', { event: 'task:leave' });
  const before = await count();
  const leave = frame('{"type":"task:leave","payload":{"taskId":"x"}}');
  const headers = `Authorization: Bearer ${await member('late')}\r\n`;
  for (const last of [frame('', { opcode: 8 }), frame('no message')]) {
    const raw = new RawSocket(gateway.port, { path: '/ws', headers });
    assert.ok(await raw.waitForText('"init"'));
    raw.send(leave, last, leave, leave);
    assert.ok(await raw.waitForClose());
  }
  await until(async () => (await count()) === before + 2, 'one before each end');
});

test('clients that vanish at any moment leave nothing behind', async () => {
  const health = async () => (await gateway.health()).websocket.connections;
  const token = await member('vanishing');
  const head = (more) => `GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${more}\r\n`;
  const auth = frame(JSON.stringify({ type: 'auth', payload: { token } }));
  const ways = [
    [head('')], [head('').slice(0, 60)], [head(''), auth.subarray(0, 20)], [head(''), auth], [head(`Authorization: Bearer ${token}\r\n`)],
    [head(`Authorization: Bearer ${token}\r\n`), frame('{"type":"dashboard:join"}'), frame('{"type":"dash')],
  ];
  for (let n = 0; n < 60; n += 1) {
    const socket = connect({ port: gateway.port, host: '127.0.0.1' }).on('error', () => {});
    for (const bytes of ways[n % ways.length]) socket.write(bytes);
    if (n % 3 === 0) socket.resetAndDestroy();
    else if (n % 3 === 1) socket.end();
    else socket.once('data', () => socket.destroy());
    if (n % 3 === 2) setTimeout(() => socket.destroy(), 200);
  }
  open.forEach((ws) => ws.terminate());
  await until(async () => (await health()) === 0, 'no session is left');
  await until(async () => (await scrape(gateway.url)).get('taskcast_unauthenticated_connections') === 0, 'no connection without a token is left');
});
