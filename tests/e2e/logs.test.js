// What the log says, and above all what it does not.
import assert from 'node:assert/strict';

import WebSocket from 'ws';

import { Client, refused } from './support/client.js';
import { JWT_SECRET, withGateway } from './support/gateway.js';
import { api, createTask, patchTask } from './support/http.js';
import { freshDatabase } from './support/mongo.js';
import { member, pipeline, sign } from './support/tokens.js';
import { test } from './support/scenario.js';
import { once, until } from './support/until.js';

const HOOK_SECRET = 'hook-secret-hook-secret';
const METRICS_TOKEN = 'metrics-token-metrics-token';
const MARKER = 'payload-marker-7d1f';
const ORIGIN = 'https://elsewhere.example.org';

const withLog = (env, body) => withGateway({ LOG_FORMAT: 'json', GITHUB_WEBHOOK_SECRET: HOOK_SECRET, METRICS_TOKEN, ...env }, body);

const lines = (gateway) => gateway.output.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));

/** Speaks Engine.IO by hand: sends one packet once the transport is open, and resolves to what came until it was closed. */
async function raw(gateway, packet, isLast = () => false) {
  const socket = new WebSocket(`${gateway.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
  const came = [];
  socket.on('message', (data) => {
    came.push(String(data));
    if (came.length === 1) socket.send(packet);
    if (isLast(came.at(-1))) socket.terminate();
  });
  await once(socket, 'close');
  return came;
}

/** `count` times, a few at once. */
async function flood(count, body) {
  let left = count;
  await Promise.all(Array.from({ length: 20 }, async () => {
    while (left-- > 0) await body();
  }));
}

for (const store of ['embedded', 'mongodb']) {
  test(`nothing secret is in the log, whatever RUST_LOG says (${store})`, async () => {
    const database = store === 'mongodb' ? await freshDatabase() : undefined;
    const env = database ? { ...database.env, FEATURE_TASK_API: 'full' } : {};
    await withLog({ RUST_LOG: 'trace', ...env }, async (gateway) => {
      const [alice, writer, another] = await Promise.all([member('alice'), pipeline(), member('alice', 'acme', { jti: 'another' })]);
      const wrong = await sign({ sub: 'alice' }, { key: new TextEncoder().encode('another-secret-another-secret-another-0') });
      const expired = await sign({ sub: 'alice', exp: 1 });
      const secrets = [JWT_SECRET, HOOK_SECRET, METRICS_TOKEN, MARKER, alice, writer, another, wrong, expired];

      const task = await createTask(gateway.url, alice, { title: MARKER, description: MARKER });
      for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
        const client = await Client.connect(gateway, alice, { transports });
        await client.join(task.taskId);
        await client.joinDashboard();
        assert.equal((await client.ask('auth:refresh', { token: another })).ok, true);
        assert.equal((await client.ask('auth:refresh', { token: wrong })).error.code, 'unauthorized');
        assert.equal((await client.ask('task:join', { taskId: `${MARKER}-absent` })).error.code, 'not_found');
        assert.equal((await client.ask(MARKER, MARKER)).error.code, 'invalid_payload');
        await patchTask(gateway.url, writer, task.taskId, { event: { eventType: 'step', payload: { text: MARKER } } });
        await client.saw('task:event_added');
        secrets.push(client.socket.id, client.socket.io.engine.id);
        client.close();
      }
      for (const token of [wrong, expired, MARKER]) await refused(gateway, token);
      await raw(gateway, `9${MARKER}`);
      await raw(gateway, `4{"${MARKER}`);
      const open = (path, headers = {}) => fetch(gateway.url + path, { headers });
      assert.equal((await open(`/socket.io/?EIO=4&transport=polling&token=${alice}`)).status, 400);
      assert.equal((await open('/socket.io/?EIO=4&transport=polling', { origin: ORIGIN })).status, 403);
      assert.equal((await open('/metrics', { authorization: `Bearer ${MARKER}` })).status, 401);
      assert.equal((await api(gateway.url, 'GET', '/api/tasks', { token: wrong })).status, 401);
      const hook = await api(gateway.url, 'POST', '/api/webhooks/github', { body: { text: MARKER }, headers: { 'x-github-event': 'ping' } });
      assert.ok(hook.status >= 400, hook.text);

      await gateway.stop();
      // The one place where a client's own word is logged: the id of a task that it asks for.
      const log = gateway.output.replaceAll(`${MARKER}-absent`, '');
      for (const secret of secrets) {
        const at = log.indexOf(secret);
        assert.equal(at, -1, `${secret} is in the log: ${log.slice(Math.max(0, at - 300), at + 200)}`);
      }
      for (const { target, level } of lines(gateway)) {
        assert.ok(target.startsWith('taskcast') || ['WARN', 'ERROR'].includes(level), `${level} of ${target}`);
      }
    });
    await database?.close();
  });
}

test('a client is followed by its connection, a request by its id', () => withLog({ RUST_LOG: 'info,taskcast=debug' }, async (gateway) => {
  const alice = await member('alice');
  const { taskId } = await createTask(gateway.url, alice);
  const [client, other] = await Promise.all([Client.connect(gateway, alice), Client.connect(gateway, await member('bob'))]);
  await client.join(taskId);
  await other.ask('task:join', { taskId: 'absent' });
  await api(gateway.url, 'PATCH', `/api/tasks/${taskId}`, { token: await pipeline(), body: { status: 'coding' }, headers: { 'x-request-id': 'one-patch' } });
  await client.saw('task:coding');
  client.close();
  const of = (user) => lines(gateway).filter(({ spans }) => spans?.some(({ name, ...fields }) => name === 'connection' && fields.user === user));
  await until(() => of('alice').some(({ message }) => message === 'a client went'), 'the end is logged');
  assert.deepEqual(of('alice').map(({ message, event }) => event ?? message), ['a client came', 'task:join', 'a client went']);
  assert.equal(new Set(of('alice').map(({ spans }) => spans[0].id)).size, 1);
  assert.deepEqual(of('bob').map(({ message, refused: code }) => code ?? message), ['a client came', 'not_found']);
  assert.notEqual(of('bob')[0].spans[0].id, of('alice')[0].spans[0].id);
  const [patched] = lines(gateway).filter(({ spans }) => spans?.some(({ name, id }) => name === 'request' && id === 'one-patch'));
  assert.deepEqual([patched.message, patched.status, patched.spans[0].path], ['answered', 200, `/api/tasks/${taskId}`]);
  const relayed = lines(gateway).filter(({ message, task }) => message === 'relayed a change' && task === taskId);
  assert.equal(relayed.length, 2, 'created and patched');
  other.close();
}));

test('a flood of what is refused is a handful of lines', () => withLog({ RUST_LOG: 'trace' }, async (gateway) => {
  const before = lines(gateway).length;
  await flood(300, () => raw(gateway, '40{"token":"x.y.z"}', (packet) => packet === '44{"message":"unauthorized"}'));
  await flood(100, () => raw(gateway, '4nonsense'));
  await flood(100, async () => assert.equal((await fetch(`${gateway.url}/socket.io/?EIO=4&transport=polling`, { headers: { origin: ORIGIN } })).status, 403));
  await flood(100, async () => assert.equal((await fetch(`${gateway.url}/socket.io/?EIO=4&transport=polling&token=x`)).status, 400));
  const told = lines(gateway).slice(before);
  assert.ok(told.length <= 12, `${told.length} lines: ${JSON.stringify(told.slice(0, 20), null, 1)}`);
  assert.ok(told.some(({ message, origin }) => message.startsWith('refused an Origin') && origin === ORIGIN));
}));

test('a flood of refused HTTP requests is, too, at the level that is the default', () => withLog({}, async (gateway) => {
  const before = lines(gateway).length;
  await flood(300, async () => assert.equal((await api(gateway.url, 'GET', '/api/tasks', { token: 'x.y.z' })).status, 401));
  await flood(100, async () => assert.equal((await fetch(`${gateway.url}/metrics`, { headers: { authorization: 'Bearer x' } })).status, 401));
  await flood(100, () => api(gateway.url, 'POST', '/api/webhooks/github', { body: {} }));
  const told = lines(gateway).slice(before);
  assert.ok(told.length <= 5, JSON.stringify(told.slice(0, 20), null, 1));
}));
