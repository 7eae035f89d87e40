// The HTTP API, as an independent program sees it.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { Gateway } from './support/gateway.js';
import { api, createTask, patchTask } from './support/http.js';
import { member, pipeline, sign } from './support/tokens.js';
import { test } from './support/scenario.js';
import { Client } from './support/client.js';
import { viewOf } from './expected.js';

let gateway;
let alice;
let bob;
let writer;

before(async () => {
  gateway = await Gateway.start();
  [alice, bob, writer] = await Promise.all([member('alice'), member('bob'), pipeline()]);
});
after(() => gateway?.stop());

const get = (path, token = alice, more = {}) => api(gateway.url, 'GET', path, { token, ...more });

function assertError(answer, status, code) {
  assert.equal(answer.status, status, answer.text);
  assert.match(answer.headers.get('content-type'), /^application\/json/);
  assert.deepEqual(Object.keys(answer.body), ['error']);
  assert.equal(typeof answer.body.error.message, 'string');
  if (code) assert.equal(answer.body.error.code, code);
}

test('health shows the state of connections, relay, store and cluster', async () => {
  const answer = await get('/api/health', null);
  assert.equal(answer.status, 200);
  const { status, websocket, relay, store, cluster } = answer.body;
  assert.equal(status, 'ok');
  for (const key of ['connectedUsers', 'connections', 'messagesPerSecond', 'totalErrors']) assert.equal(typeof websocket[key], 'number', key);
  assert.equal(typeof relay.lagMs, 'number');
  assert.ok('epoch' in relay && 'lastEventId' in relay);
  assert.deepEqual(store, { kind: 'embedded', ok: true });
  assert.equal(typeof cluster.ok, 'boolean');
  assert.ok(Array.isArray(cluster.nodes));
  assert.equal((await get('/api/health/live', null)).status, 200);
});

test('a new task is returned as clients receive it, and a private one only to its creator', async () => {
  const task = await createTask(gateway.url, alice, { title: 'New', description: 'long text', isPrivate: true, repo: 'acme/site' });
  assert.match(task.createdAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.deepEqual(
    [task._id, task.title, task.status, task.createdBy, task.creator, task.orgId, task.isPrivate, task.repo, task.events],
    [task.taskId, 'New', 'received', 'alice', 'alice of acme', 'acme', true, 'acme/site', []],
  );
  assert.ok(!('description' in task), 'clients do not receive the description');
  const fetched = await get(`/api/tasks/${task.taskId}`);
  assert.equal(fetched.status, 200);
  assert.deepEqual(viewOf(fetched.body), viewOf(task));
  assert.match(fetched.body.eventId, /^[0-9a-f]{16}-[0-9a-f]{6}-[0-9a-f]{6}$/);
  assertError(await get(`/api/tasks/${task.taskId}`, bob), 404, 'not_found');
});

test('pages list each task once, newest first, also while tasks are added', async () => {
  const pager = await member('pager', 'paging');
  const ids = [];
  for (let n = 0; n < 25; n += 1) ids.unshift((await createTask(gateway.url, pager, { title: `page ${n}` })).taskId);
  const seen = [];
  let cursor;
  do {
    const page = await get(`/api/tasks?limit=10${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`, pager);
    assert.equal(page.status, 200, page.text);
    assert.ok(page.body.tasks.length <= 10);
    seen.push(...page.body.tasks.map(({ taskId }) => taskId));
    cursor = page.body.nextCursor;
    await createTask(gateway.url, pager, { title: 'added meanwhile' });
  } while (cursor);
  assert.deepEqual(seen, ids);
  assert.ok(!('events' in (await get('/api/tasks?limit=1', pager)).body.tasks[0]), 'summaries');
});

test('tasks can be filtered by status and creator', async () => {
  const [ann, ben] = await Promise.all([member('ann', 'filters'), member('ben', 'filters')]);
  const moved = await createTask(gateway.url, ann);
  await createTask(gateway.url, ann);
  const bens = await createTask(gateway.url, ben);
  await patchTask(gateway.url, await pipeline('filters'), moved.taskId, { status: 'coding' });
  const ids = async (query) => (await get(`/api/tasks?${query}`, ann)).body.tasks.map(({ taskId }) => taskId);
  assert.deepEqual(await ids('status=coding'), [moved.taskId]);
  assert.deepEqual(await ids('creator=ben'), [bens.taskId]);
  assert.deepEqual(await ids('creator=ann&status=coding'), [moved.taskId]);
  assert.deepEqual(await ids('creator=ben&status=coding'), []);
  assert.equal((await ids('')).length, 3);
});

test('invalid requests get an error', async () => {
  assertError(await get('/api/tasks', null), 401, 'unauthorized');
  assertError(await get('/api/tasks', await sign({ sub: 'alice', orgId: 'acme', exp: 1 })), 401);
  for (const query of ['limit=0', 'limit=-1', 'limit=x', 'cursor=nonsense', 'cursor=%00']) assertError(await get(`/api/tasks?${query}`), 400);
  assertError(await get('/api/nothing'), 404);
  assertError(await get('/api/tasks/absent'), 404, 'not_found');
  assertError(await get('/api/tasks/%00'), 404);
  assertError(await get('/nothing', null), 404);
});

test('invalid bodies are refused', async () => {
  const post = (options) => api(gateway.url, 'POST', '/api/tasks', { token: alice, ...options });
  const json = { 'content-type': 'application/json' };
  for (const body of [null, [], 'x', 1, {}, { title: '' }, { title: 1 }, { title: { $ne: null } }, { title: 'x', isPrivate: 'yes' }, { title: 'x', repo: 'no slash' }]) {
    assertError(await post({ body }), 400);
  }
  assertError(await post({ raw: '{"title":', headers: json }), 400);
  assertError(await post({ raw: `{"title":${'['.repeat(5000)}${']'.repeat(5000)}}`, headers: json }), 400);
  assertError(await post({ raw: '{"title":"x"}', headers: { 'content-type': 'text/plain' } }), 415);
  assertError(await post({ body: { title: 'x', description: 'y'.repeat(3_000_000) } }), 413);
});

test('changing a task needs the scope and the same organisation', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const patch = (token, body, id = taskId) => api(gateway.url, 'PATCH', `/api/tasks/${id}`, { token, body });
  assertError(await patch(null, { status: 'coding' }), 401);
  assertError(await patch(alice, { status: 'coding' }), 403);
  assertError(await patch(await pipeline('globex'), { status: 'coding' }), 404, 'not_found');
  assertError(await patch(writer, { status: 'coding' }, 'absent'), 404, 'not_found');
  for (const body of [{}, { status: 'nonsense' }, { status: 1 }, { status: { $ne: null } }, { unknown: 1 }, { event: {} }, { event: { eventType: 1 } }, { _id: 'x' }]) {
    assertError(await patch(writer, body), 400);
  }
  const moved = await patch(writer, { status: 'pr_open', prNumber: 3, prTitle: 'It', event: { eventType: 'pr_opened', payload: { apiKey: 'k', nested: [{ Password: 'p' }], n: 1 } } });
  assert.ok([200, 202].includes(moved.status), moved.text);
  const { status, prNumber, githubPrNumber, prTitle, events } = moved.body;
  assert.deepEqual([status, prNumber, githubPrNumber, prTitle], ['pr_open', 3, 3, 'It']);
  assert.deepEqual(events.map(({ eventType, payload }) => [eventType, payload]), [['pr_opened', { apiKey: '[redacted]', nested: [{ Password: '[redacted]' }], n: 1 }]]);
  assertError(await patch(writer, { status: 'received' }), 409, 'conflict');
  assert.equal((await patch(writer, { status: 'merged' })).body.status, 'merged');
  assertError(await patch(writer, { status: 'coding' }), 409, 'conflict');
});

test('a member of the organisation can answer the questions of a task, once', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const clarify = (token, body, id = taskId) => api(gateway.url, 'POST', `/api/tasks/${id}/clarify`, { token, body });
  assertError(await clarify(bob, { answers: ['yes'] }), 409, 'conflict');
  await patchTask(gateway.url, writer, taskId, { status: 'needs_clarification', questions: ['Which one?'] });
  for (const body of [{}, { answers: 'yes' }, { answers: [] }, { answers: [1] }]) assertError(await clarify(bob, body), 400);
  assertError(await clarify(null, { answers: ['yes'] }), 401);
  assertError(await clarify(await member('eve', 'globex'), { answers: ['yes'] }), 404, 'not_found');
  const answered = await clarify(bob, { answers: ['the second'] });
  assert.equal(answered.status, 202, answered.text);
  assert.deepEqual([answered.body.status, answered.body.clarificationAnswers, answered.body.events.map(({ eventType }) => eventType)],
    ['analyzing', ['the second'], ['clarified']]);
  assertError(await clarify(bob, { answers: ['again'] }), 409, 'conflict');
});

test('a repeated write has one effect, also after the gateway was killed', async () => {
  const key = (value) => ({ 'idempotency-key': value });
  const post = (value, title = 'once') => api(gateway.url, 'POST', '/api/tasks', { token: alice, headers: key(value), body: { title } });
  const first = await post('k1');
  const { taskId } = first.body;
  const client = await Client.connect(gateway, alice);
  await client.join(taskId);
  const patch = (body) => api(gateway.url, 'PATCH', `/api/tasks/${taskId}`, { token: writer, headers: key('k1'), body });
  const patched = await patch({ status: 'coding', event: { eventType: 'note' } });
  await client.waitForEvent('task:event_added');
  assert.equal(patched.body.eventId, client.copy(taskId).last, 'the copy of a client contains the write when it has this eventId');
  client.close();

  await gateway.kill();
  await gateway.launch();
  const [again, patchedAgain] = [await post('k1'), await patch({ event: { eventType: 'note' }, status: 'coding' })];
  assert.deepEqual([again.status, again.body.taskId, again.headers.get('location')], [202, taskId, first.headers.get('location')]);
  assert.deepEqual([patchedAgain.status, patchedAgain.body.eventId, patchedAgain.body.events.length], [200, patched.body.eventId, 1]);
  assertError(await post('k1', 'twice'), 422, 'idempotency_key_reused');
  assertError(await post('not visible'), 400, 'invalid_payload');
  const created = new Set((await Promise.all(Array.from({ length: 20 }, () => post('k2')))).filter(({ status }) => status !== 409).map(({ body }) => body.taskId));
  assert.equal(created.size, 1);
});

test('a write with an older eventId than the last change is refused', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const { eventId } = (await get(`/api/tasks/${taskId}`)).body;
  const patch = (ifMatch, body) => api(gateway.url, 'PATCH', `/api/tasks/${taskId}`, { token: writer, headers: { 'if-match': ifMatch }, body });
  const first = await patch(eventId, { title: 'first' });
  assert.equal(first.status, 200, first.text);
  assertError(await patch(eventId, { title: 'second' }), 412, 'precondition_failed');
  assertError(await patch('yesterday', { title: 'second' }), 400, 'invalid_payload');
  assert.equal((await get(`/api/tasks/${taskId}`)).body.title, 'first');
  assert.equal((await patch(`"${first.body.eventId}"`, { title: 'second' })).status, 200);
});

test('a request id is echoed or generated', async () => {
  assert.equal((await get('/api/health', null, { headers: { 'x-request-id': 'mine-42' } })).headers.get('x-request-id'), 'mine-42');
  assert.ok((await get('/api/health', null)).headers.get('x-request-id'));
});

test('FEATURE_TASK_API limits the task API to nothing, or to reads', async () => {
  for (const [level, mayRead] of [['off', false], ['read', true]]) {
    const limited = await Gateway.start({ FEATURE_TASK_API: level });
    try {
      const read = await api(limited.url, 'GET', '/api/tasks', { token: alice });
      const write = await api(limited.url, 'POST', '/api/tasks', { token: alice, body: { title: 'x' } });
      assert.equal(read.status === 200, mayRead, `${level}: ${read.status} ${read.text}`);
      if (!mayRead) assert.equal(read.body.error.code, 'feature_disabled');
      assert.ok(write.status >= 400 && write.status < 500, `${level}: ${write.status} ${write.text}`);
      assert.equal(write.body.error.code, 'feature_disabled');
    } finally {
      await limited.stop();
    }
  }
});
