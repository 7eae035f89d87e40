// The log has what an operator needs, and no secrets.
import assert from 'node:assert/strict';

import { ObjectId } from 'mongodb';
import WebSocket from 'ws';

import { Client, refused } from './support/client.js';
import { Gateway, JWT_SECRET, withGateway } from './support/gateway.js';
import { deliver, example } from './support/github.js';
import { api, createTask, patchTask } from './support/http.js';
import { freshDatabase } from './support/mongo.js';
import { freePort } from './support/ports.js';
import { member, pipeline, sign } from './support/tokens.js';
import { test } from './support/scenario.js';
import { once, until } from './support/until.js';
import { Wire } from './support/wire.js';

const HOOK_SECRET = 'hook-secret-hook-secret';
const METRICS_TOKEN = 'metrics-token-metrics-token';
const MARKER = 'payload-marker-7d1f';
const ORIGIN = 'https://elsewhere.example.org';

const withLog = (env, body) => withGateway({ LOG_FORMAT: 'json', GITHUB_WEBHOOK_SECRET: HOOK_SECRET, METRICS_TOKEN, ...env }, body);

const lines = (gateway) => gateway.output.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));

/** Sends one raw Engine.IO packet when the transport is open, and resolves to all packets received until it closes. */
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

/** Runs `body` `count` times, 20 at once. */
async function flood(count, body) {
  let left = count;
  await Promise.all(Array.from({ length: 20 }, async () => {
    while (left-- > 0) await body();
  }));
}

for (const store of ['embedded', 'mongodb']) {
  test(`the log contains no secret at any RUST_LOG level (${store})`, async () => {
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
        await client.waitForEvent('task:event_added');
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
      // The log shows only one text of a client: the id of a task that it asks for.
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

/** A unique word for each field, so that any output shows which field it comes from. */
const canary = (place) => `canary-${place}-5e1f`;
const CANARY = /canary-[\w.-]+?-5e1f/g;

/** A task with a canary in each field that a document can have. */
const telling = (_id, at) => ({
  _id, title: canary(`${at}.title`), llmSummary: canary('hidden.llmSummary'), description: canary('hidden.description'), status: 'needs_clarification', createdBy: 'alice', creatorName: canary(`${at}.creatorName`),
  orgId: 'acme', isPrivate: true, createdAt: new Date(), updatedAt: new Date(), repo: 'acme/web', githubIssueNumber: 7, githubIssueUrl: canary(`${at}.issueUrl`), githubBranch: canary(`${at}.branch`), githubPrNumber: 8,
  githubPrUrl: canary(`${at}.prUrl`), prTitle: canary(`${at}.prTitle`), prState: 'open', mergeCommitSha: canary(`${at}.sha`), questions: [canary(`${at}.questions`)], clarificationAnswers: [canary(`${at}.answers`)],
  errorMessage: canary(`${at}.errorMessage`), [canary('hidden.name')]: 1, internal: { deep: [{ [canary('hidden.deepName')]: canary('hidden.deep') }] }, token: canary('hidden.token'),
  events: [{
    eventType: canary(`${at}.eventType`), createdAt: new Date(), internal: canary('hidden.entry'),
    payload: { text: canary(`${at}.payload`), deep: [{ API_KEY: canary('hidden.apiKey'), 'Set-Cookie': { a: canary('hidden.cookie') } }], accessToken: canary('hidden.accessToken'), password: [canary('hidden.password')], Authorization: canary('hidden.authorization'), client_secret: canary('hidden.secret'), credentials: { a: canary('hidden.credential') } },
  }],
});

test('task contents reach only users who may see the task, never the log or metrics; hidden fields reach no client', async () => {
  const database = await freshDatabase();
  const env = { ...database.env, FEATURE_TASK_API: 'full', RUST_LOG: 'trace', METRICS_TOKEN: undefined, JOIN_RATE_PER_SECOND: '1000' };
  try {
    await withLog(env, async (gateway) => {
      const [_id, odd] = [new ObjectId(), { of: canary('hidden.id') }];
      const taskId = _id.toHexString();
      const { tasks } = database;
      await tasks.insertMany([telling(_id, 'seen'), telling(odd, 'unreadable')]);
      const people = { alice: await member('alice'), mallory: await member('mallory'), foreign: await pipeline('globex') };
      const wires = Object.fromEntries(Object.keys(people).map((name) => [name, new Wire()]));
      const clients = [];
      for (const [name, token] of Object.entries(people)) {
        for (const transports of [['websocket'], ['polling']]) {
          const client = new Client(gateway, token, { transports });
          wires[name].tap(client.socket);
          await client.connected();
          clients.push([name, client]);
          wires[name].take(JSON.stringify([await client.ask('dashboard:join'), await client.ask('task:join', { taskId }), await client.ask('resync_requested', { taskIds: [taskId], dashboard: true }), await client.ask('resync_requested', { taskIds: [taskId], since: '0' })]));
        }
      }
      const ask = async (name, method, path, body) => wires[name].http(gateway.url + path, { method, headers: { authorization: `Bearer ${people[name]}`, 'content-type': 'application/json' }, body: body && JSON.stringify(body) });
      const asked = async () => {
        for (const name of Object.keys(people)) {
          for (const path of ['/api/tasks', '/api/tasks?creator=alice', `/api/tasks/${taskId}`]) await ask(name, 'GET', path);
          await ask(name, 'PATCH', `/api/tasks/${taskId}`, { status: 'received', title: canary('refused.title'), event: { eventType: 'x', payload: { token: canary('hidden.sent') } } });
        }
      };
      await asked();
      assert.equal((await deliver(gateway, 'pull_request', { ...example('pull_request', 'opened'), internal: canary('hidden.webhook') }, { secret: HOOK_SECRET })).status < 300, true);
      assert.equal((await deliver(gateway, 'pull_request', undefined, { secret: HOOK_SECRET, body: `{"action":"opened","${canary('hidden.body')}` })).status, 400);
      assert.equal((await deliver(gateway, 'pull_request', { action: canary('hidden.action') }, { secret: canary('hidden.wrongSecret') })).status, 401);
      // Each field changes, the timeline is edited and emptied, and the tasks are deleted. Before-images hold the old values.
      const alice = clients[0][1];
      const { internal: _, ...changed } = telling(_id, 'changed');
      await tasks.replaceOne({ _id }, { ...changed, status: 'failed' });
      await alice.waitForEvent('task:state', ({ title }) => title === canary('changed.title'));
      await tasks.updateOne({ _id }, { $push: { events: telling(_id, 'pushed').events[0] } });
      await alice.waitForEvent('task:event_added');
      await tasks.updateOne({ _id }, { $set: { events: [] } });
      await tasks.updateOne({ _id: odd }, { $set: { title: canary('unreadable.again') } });
      await asked();
      await tasks.deleteMany({});
      await alice.waitForEvent('task:deleted');
      const metrics = await (await fetch(`${gateway.url}/metrics`)).text();
      const health = JSON.stringify(await gateway.health());
      for (const [, client] of clients) client.close();
      await gateway.stop();

      const found = (text) => [...new Set(text.match(CANARY) ?? [])];
      assert.deepEqual(found(wires.mallory.text), [], 'to a member of the organisation, about a private task');
      assert.deepEqual(found(wires.foreign.text), [], 'to a user of another organisation');
      assert.deepEqual(found(gateway.output), [], 'in the log');
      assert.deepEqual([...found(metrics), ...found(health)], [], 'in metrics and health');
      const told = found(wires.alice.text);
      assert.deepEqual(told.filter((word) => word.includes('hidden') || word.includes('unreadable') || word.includes('refused')), [], 'to its owner');
      assert.ok(told.length > 20, `the owner receives the contents: ${told}`);
    });
  } finally {
    await database.close();
  }
});

test('passwords in server URLs appear in no log and no answer, whatever is wrong with the server', async () => {
  const password = canary('password');
  const closed = await freePort();
  for (const [env, code] of [
    [{ MONGODB_URI: `mongodb://user:${password}@127.0.0.1:${closed}/?serverSelectionTimeoutMS=300`, REDIS_URL: `redis://user:${password}@127.0.0.1:${closed}` }, undefined],
    [{ MONGODB_URI: process.env.TASKCAST_E2E_MONGODB_URI.replace('mongodb://', `mongodb://user:${password}@`) }, 1],
    [{ MONGODB_URI: `mongodb://user:${password}@@127.0.0.1/`, REDIS_URL: `redis://:${password}@127.0.0.1:x/`, JWT_SECRET: password, GITHUB_WEBHOOK_SECRET: password, METRICS_TOKEN: password, PORT: password }, 2],
  ]) {
    const gateway = new Gateway(await freePort(), { LOG_FORMAT: 'json', RUST_LOG: 'trace', ...env });
    try {
      gateway.spawn();
      const answers = [];
      if (code === undefined) {
        await gateway.waitForLog(/waiting for the store/);
        for (const path of ['/api/health', '/metrics', '/api/tasks']) answers.push(await (await fetch(gateway.url + path, { headers: { authorization: `Bearer ${await member('alice')}` } })).text());
      } else {
        await until(() => gateway.exit, () => `it ends: ${gateway.output}`);
        assert.equal(gateway.exit.code, code, gateway.output);
      }
      for (const text of [gateway.output, ...answers]) assert.ok(!text.includes(password) && text.length > 10, text);
    } finally {
      await gateway.stop().catch((error) => assert.equal(gateway.exit?.code, code, error.message));
    }
  }
});

test('log lines name the connection of a client and the id of a request', () => withLog({ RUST_LOG: 'info,taskcast=debug' }, async (gateway) => {
  const alice = await member('alice');
  const { taskId } = await createTask(gateway.url, alice);
  const [client, other] = await Promise.all([Client.connect(gateway, alice), Client.connect(gateway, await member('bob'))]);
  await client.join(taskId);
  await other.ask('task:join', { taskId: 'absent' });
  await api(gateway.url, 'PATCH', `/api/tasks/${taskId}`, { token: await pipeline(), body: { status: 'coding' }, headers: { 'x-request-id': 'one-patch' } });
  await client.waitForEvent('task:coding');
  client.close();
  const of = (user) => lines(gateway).filter(({ spans }) => spans?.some(({ name, ...fields }) => name === 'connection' && fields.user === user));
  await until(() => of('alice').some(({ message }) => message === 'a client disconnected'), 'the end is logged');
  assert.deepEqual(of('alice').map(({ message, event }) => event ?? message), ['a client connected', 'task:join', 'a client disconnected']);
  assert.equal(new Set(of('alice').map(({ spans }) => spans[0].id)).size, 1);
  assert.deepEqual(of('bob').map(({ message, refused: code }) => code ?? message), ['a client connected', 'not_found']);
  assert.notEqual(of('bob')[0].spans[0].id, of('alice')[0].spans[0].id);
  const [patched] = lines(gateway).filter(({ spans }) => spans?.some(({ name, id }) => name === 'request' && id === 'one-patch'));
  assert.deepEqual([patched.message, patched.status, patched.spans[0].path], ['answered', 200, `/api/tasks/${taskId}`]);
  const relayed = lines(gateway).filter(({ message, task }) => message === 'relayed a change' && task === taskId);
  assert.equal(relayed.length, 2, 'created and patched');
  other.close();
}));

test('a flood of refused connections gives only a few log lines', () => withLog({ RUST_LOG: 'trace' }, async (gateway) => {
  const before = lines(gateway).length;
  await flood(300, () => raw(gateway, '40{"token":"x.y.z"}', (packet) => packet === '44{"message":"unauthorized"}'));
  await flood(100, () => raw(gateway, '4nonsense'));
  await flood(100, async () => assert.equal((await fetch(`${gateway.url}/socket.io/?EIO=4&transport=polling`, { headers: { origin: ORIGIN } })).status, 403));
  await flood(100, async () => assert.equal((await fetch(`${gateway.url}/socket.io/?EIO=4&transport=polling&token=x`)).status, 400));
  const told = lines(gateway).slice(before);
  assert.ok(told.length <= 12, `${told.length} lines: ${JSON.stringify(told.slice(0, 20), null, 1)}`);
  assert.ok(told.some(({ message, origin }) => message.startsWith('refused an Origin') && origin === ORIGIN));
}));

test('a flood of refused HTTP requests gives only a few log lines at the default level', () => withLog({}, async (gateway) => {
  const before = lines(gateway).length;
  await flood(300, async () => assert.equal((await api(gateway.url, 'GET', '/api/tasks', { token: 'x.y.z' })).status, 401));
  await flood(100, async () => assert.equal((await fetch(`${gateway.url}/metrics`, { headers: { authorization: 'Bearer x' } })).status, 401));
  await flood(100, () => api(gateway.url, 'POST', '/api/webhooks/github', { body: {} }));
  const told = lines(gateway).slice(before);
  assert.ok(told.length <= 5, JSON.stringify(told.slice(0, 20), null, 1));
}));
