// GitHub's webhooks: payloads and signatures of GitHub's own libraries, a real mongod, and a watching client.
import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import { request } from 'node:http';
import { after, before } from 'node:test';

import { MongoClient, ObjectId } from 'mongodb';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { deliver, example, examples, SECRET } from './support/github.js';
import { History } from './support/history.js';
import { createTask } from './support/http.js';
import { freshDatabase, startMongod } from './support/mongo.js';
import { member } from './support/tokens.js';
import { test } from './support/scenario.js';
import { once, until } from './support/until.js';

const USED = ['pull_request', 'pull_request_review', 'issues', 'issue_comment', 'check_run', 'check_suite', 'workflow_run'];
const OLDER_SECRET = 'the secret before that one';
const REPO = 'Codertocat/Hello-World';

let database;
let gateway;
let tasks;
let deliveries;
let watcher;
let numbers = 1000;

before(async () => {
  database = await freshDatabase();
  tasks = database.tasks;
  deliveries = database.db.collection('tasks_github_deliveries');
  gateway = await Gateway.start({ ...database.env, GITHUB_WEBHOOK_SECRET: `${SECRET},${OLDER_SECRET}` });
  watcher = await member('watcher');
});
after(async () => {
  await gateway?.stop();
  await database?.close();
});

async function insert(fields = {}) {
  const _id = new ObjectId();
  const task = {
    _id, title: 'A task', status: 'coding', createdBy: 'alice', orgId: 'acme', isPrivate: false, repo: REPO.toUpperCase(),
    createdAt: new Date(), updatedAt: new Date(), events: [], ...fields,
  };
  await tasks.insertOne(task);
  return _id;
}

const read = (_id) => tasks.findOne({ _id });
const entries = async (_id) => (await read(_id)).events.map(({ eventType }) => eventType);

/** A `pull_request` payload of pull request `number`, which closes issue `number`. */
function pullRequest(action, { number, second = 0, state = 'open', title = 'Title' }) {
  const payload = example('pull_request', 'opened');
  const at = new Date(Date.UTC(2026, 0, 2, 3, 4, second)).toISOString().replace('.000Z', 'Z');
  payload.action = action;
  payload.number = number;
  Object.assign(payload.pull_request, {
    number, title, body: `Fixes #${number}`, html_url: `https://github.com/${REPO}/pull/${number}`,
    state: ['open', 'draft'].includes(state) ? 'open' : 'closed', draft: state === 'draft', merged: state === 'merged',
    merged_at: state === 'merged' ? at : null, merge_commit_sha: 'c4295bd74fb0f4fda03689c3df3f2803b658fd85', updated_at: at,
  });
  payload.pull_request.head.ref = `branch-${number}`;
  return payload;
}

async function accepted(event, payload, options) {
  const answer = await deliver(gateway, event, payload, options);
  assert.deepEqual([answer.status, answer.body], [200, { ok: true }], `${event} ${payload.action}`);
}

test('every documented payload is accepted, or ignored with a reason', async () => {
  assert.ok(examples.length > 500);
  for (const { event, payload } of examples) {
    const { status, body } = await deliver(gateway, event, payload);
    const ok = event === 'ping' ? status === 200 && body.ok === true : status === 202 && /\w+ \w+/.test(body.ignored);
    assert.ok(ok, `${event} ${payload.action}: ${status} ${JSON.stringify(body)}`);
  }
  assert.equal(await deliveries.countDocuments(), 0);
});

/** The fields by which the gateway finds the task of a payload; null when it finds none. */
function known({ event, payload }) {
  const repo = payload.repository.full_name;
  if (event.startsWith('pull_request')) return { repo, prNumber: payload.pull_request.number };
  if (event.startsWith('issue')) return { repo, githubIssueNumber: payload.issue.number };
  const run = payload[event];
  if (payload.action !== 'completed') return null;
  const [pr] = run.pull_requests;
  if (pr) return { repo: pr.base.repo.url.split('/repos/')[1], githubPrNumber: pr.number };
  return { repo, githubBranch: run.head_branch ?? run.check_suite.head_branch };
}

test('a payload about a known task changes only that task', async () => {
  const counted = {};
  for (const one of examples.filter(({ event }) => USED.includes(event))) {
    const { event, payload } = one;
    const about = known(one);
    await tasks.deleteMany({});
    if (!about) {
      await insert({ prNumber: 2, githubBranch: 'changes' });
      assert.equal((await deliver(gateway, event, payload)).status, 202);
      continue;
    }
    const { repo, ...by } = about;
    const right = await insert({ ...by, repo: repo.toLowerCase() });
    const wrong = [await insert({ ...by, repo: 'someone/else' }), await insert({ ...by, repo: `${repo}2` }), await insert({ repo })];
    await accepted(event, payload);
    assert.equal((await entries(right)).length, 1, `${event} ${payload.action}`);
    for (const other of wrong) assert.deepEqual(await entries(other), [], `${event} ${payload.action}`);
    const { status, prState } = await read(right);
    if (event !== 'pull_request') assert.deepEqual([status, prState], ['coding', undefined]);
    if (event === 'pull_request' && payload.action === 'closed') assert.deepEqual([status, prState], ['failed', 'closed']);
    if (event === 'pull_request' && payload.action !== 'closed') assert.equal(status, 'pr_open');
    counted[event] = (counted[event] ?? 0) + 1;
  }
  assert.deepEqual(Object.keys(counted).sort(), [...USED].sort(), JSON.stringify(counted));
  await tasks.deleteMany({});
});

test('a client sees every step of a pull request from its opening to its merge', async () => {
  const number = (numbers += 1);
  const id = await insert({ githubIssueNumber: number });
  const history = await History.of(gateway, watcher, tasks, id);
  const link = `https://github.com/${REPO}/pull/${number}`;
  const told = (eventType, payload) => ['task:event_added', (event) => {
    assert.equal(event.event.eventType, eventType);
    assert.deepEqual(event.event.payload, { prNumber: number, prUrl: link, prTitle: 'Title', prState: payload, actor: 'Codertocat' });
  }];
  const step = async (payload, expected) => {
    const got = await history.room(() => accepted('pull_request', payload));
    assert.deepEqual(got.map(([event]) => event), expected.map(([event]) => event));
    for (const [n, [, check]] of expected.entries()) {
      if (typeof check === 'function') check(got[n][1]);
      else assert.deepEqual(got[n][1], { taskId: history.taskId, ...check });
    }
  };
  await step(pullRequest('opened', { number, second: 1, state: 'draft' }), [
    ['task:pr_opened', { status: 'pr_open', prNumber: number, prUrl: link, prTitle: 'Title', prState: 'draft' }],
    told('pr_opened', 'draft'),
  ]);
  await step(pullRequest('ready_for_review', { number, second: 2 }), [
    ['task:updated', { status: 'pr_open', changed: { prState: 'open' } }],
    told('pr_ready_for_review', 'open'),
  ]);
  await step(pullRequest('closed', { number, second: 3, state: 'closed' }), [
    ['task:pr_closed', { status: 'failed', prNumber: number }],
    ['task:updated', { status: 'failed', changed: { prState: 'closed' } }],
    told('pr_closed', 'closed'),
  ]);
  await step(pullRequest('reopened', { number, second: 4 }), [
    ['task:pr_opened', { status: 'pr_open', prNumber: number, prUrl: link, prTitle: 'Title', prState: 'open' }],
    told('pr_reopened', 'open'),
  ]);
  await step(pullRequest('closed', { number, second: 5, state: 'merged' }), [
    ['task:pr_merged', { status: 'merged', mergeCommitSha: 'c4295bd74fb0f4fda03689c3df3f2803b658fd85', mergedAt: '2026-01-02T03:04:05.000Z' }],
    ['task:updated', { status: 'merged', changed: { prState: 'merged' } }],
    told('pr_merged', 'merged'),
  ]);
  history.client.assertInOrder();
  history.close();
});

test('a delivery that arrives a hundred times at once is applied once', async () => {
  const number = (numbers += 1);
  const id = await insert({ issueNumber: number });
  const client = await Client.connect(gateway, watcher);
  await client.join(id.toHexString());
  const payload = pullRequest('opened', { number });
  const delivery = { id: randomUUID() };
  const answers = await Promise.all(Array.from({ length: 100 }, () => deliver(gateway, 'pull_request', payload, delivery)));
  assert.deepEqual(answers.filter(({ status }) => status !== 200), []);
  assert.equal(answers.filter(({ body }) => body.duplicate === true).length, 99);
  assert.deepEqual(await entries(id), ['pr_opened']);
  await accepted('pull_request', pullRequest('edited', { number, second: 1, title: 'Edited' }));
  await client.waitForEvent('task:event_added', ({ event }) => event.eventType === 'pr_edited');
  assert.equal(client.all('task:pr_opened').length, 1);
  assert.equal(client.all('task:event_added').length, 2);
  client.close();
});

function permutations(items) {
  if (items.length < 2) return [items];
  return items.flatMap((item, n) => permutations(items.toSpliced(n, 1)).map((rest) => [item, ...rest]));
}

for (const [end, status, prState] of [['merged', 'merged', 'merged'], ['closed', 'pr_open', 'open']]) {
  test(`all orders of the deliveries of a pull request that is ${end} give the same task`, async () => {
    const actions = [
      ['opened', {}], ['edited', { title: 'Edited' }], ['converted_to_draft', { title: 'Edited', state: 'draft' }],
      ['ready_for_review', { title: 'Edited' }], ['closed', { title: 'Edited', state: end }], ['reopened', { title: 'Edited again' }],
    ].map(([action, more], n) => [action, { ...more, second: n + 1 }]);
    const orders = permutations(actions);
    assert.equal(orders.length, 720);
    const next = orders.entries();
    const worker = async () => {
      for (const [, order] of next) {
        const number = (numbers += 1);
        const id = await insert({ issueNumber: number });
        for (const [action, more] of order) await accepted('pull_request', pullRequest(action, { number, ...more }));
        const task = await read(id);
        assert.deepEqual(
          [task.status, task.prState, task.prTitle, task.githubPrNumber, task.mergeCommitSha, task.events.length],
          [status, prState, 'Edited again', number, end === 'merged' ? 'c4295bd74fb0f4fda03689c3df3f2803b658fd85' : undefined, 6],
          order.map(([action]) => action).join(', '),
        );
        await tasks.deleteOne({ _id: id });
      }
    };
    await Promise.all(Array.from({ length: 40 }, worker));
  }, { timeout: 600_000 });
}

test('deliveries without a valid signature or body are refused, and nothing of them is stored', async () => {
  const number = (numbers += 1);
  const id = await insert({ issueNumber: number });
  const before = await read(id);
  const marks = await deliveries.countDocuments();
  const payload = pullRequest('opened', { number });
  const body = JSON.stringify(payload);
  const sha = (kind, text) => createHmac(kind, SECRET).update(text).digest('hex');
  const right = `sha256=${sha('sha256', body)}`;
  const broken = Buffer.from(body.replace('Title', 'Tit\u00e4'), 'latin1');
  const signed = (bytes) => ({ body: bytes, headers: { 'x-hub-signature-256': `sha256=${sha('sha256', bytes)}` } });
  const large = Buffer.alloc(25 * 1024 * 1024 + 1, ' ');
  large.write(body);
  const refusals = [
    [401, 'unauthorized', { secret: 'guessed' }],
    [401, 'unauthorized', { headers: { 'x-hub-signature-256': null } }],
    [401, 'unauthorized', { headers: { 'x-hub-signature-256': null, 'x-hub-signature': `sha1=${sha('sha1', body)}` } }],
    [401, 'unauthorized', { headers: { 'x-hub-signature-256': `sha1=${sha('sha1', body)}` } }],
    [401, 'unauthorized', { headers: { 'x-hub-signature-256': right.slice(0, -2) } }],
    [401, 'unauthorized', { headers: { 'x-hub-signature-256': right.slice('sha256='.length) } }],
    [401, 'unauthorized', { headers: { 'x-hub-signature-256': right, 'content-type': 'text/plain' }, body: body.slice(0, -1) }],
    [401, 'unauthorized', { headers: { 'x-hub-signature-256': right }, body: body.replace('Title', 'title') }],
    [400, 'invalid_payload', signed(Buffer.from(body.slice(0, -1)))],
    [400, 'invalid_payload', signed(broken)],
    [400, 'invalid_payload', { headers: { 'x-github-event': null } }],
    [400, 'invalid_payload', { headers: { 'x-github-delivery': null } }],
    [415, 'unsupported_media_type', { headers: { 'content-type': 'application/x-www-form-urlencoded' } }],
    [413, 'payload_too_large', signed(large)],
    [413, 'payload_too_large', { body: large, headers: { 'x-hub-signature-256': null } }],
  ];
  for (const [status, code, options] of refusals) {
    const answer = await deliver(gateway, 'pull_request', payload, options);
    assert.deepEqual([answer.status, answer.body.error?.code], [status, code], JSON.stringify([options.headers, answer.body]));
  }
  assert.deepEqual(await read(id), before);
  assert.equal(await deliveries.countDocuments(), marks);
  const largest = Buffer.alloc(25 * 1024 * 1024, ' ');
  largest.write(body);
  assert.equal((await deliver(gateway, 'pull_request', payload, signed(largest))).status, 200);
  assert.deepEqual(await entries(id), ['pr_opened']);
});

test('a body that does not end gets 503 after a while', async () => {
  const headers = { 'x-hub-signature-256': `sha256=${'0'.repeat(64)}`, 'content-type': 'application/json', 'content-length': 1000 };
  const asked = request(`${gateway.url}/api/webhooks/github`, { method: 'POST', headers });
  asked.write('{');
  const answer = await once(asked, 'response', 60_000);
  asked.destroy();
  assert.equal(answer.statusCode, 503);
});

test('an older secret is still accepted during a rotation', async () => {
  const number = (numbers += 1);
  const id = await insert({ issueNumber: number });
  await accepted('pull_request', pullRequest('opened', { number }), { secret: OLDER_SECRET });
  await accepted('pull_request', pullRequest('labeled', { number, second: 1 }), { secret: SECRET });
  assert.equal((await deliver(gateway, 'pull_request', pullRequest('labeled', { number }), { secret: `${SECRET},${OLDER_SECRET}` })).status, 401);
  assert.deepEqual(await entries(id), ['pr_opened', 'pr_labeled']);
});

test('the log names deliveries but not their contents', async () => {
  const number = (numbers += 1);
  await insert({ issueNumber: number });
  const id = randomUUID();
  await accepted('pull_request', pullRequest('opened', { number, title: 'hunter2 title' }), { id });
  await until(() => gateway.output.includes(id), 'the delivery in the log');
  const line = gateway.output.split('\n').find((text) => text.includes(id));
  for (const said of ['pull_request', 'opened', 'written']) assert.ok(line.includes(said), line);
  for (const secret of ['hunter2', SECRET, OLDER_SECRET]) assert.ok(!gateway.output.includes(secret), secret);
});

test('GitHub gets a 5xx while MongoDB is down, and the redelivery succeeds', async () => {
  const mongod = await startMongod({ extra: ['--setParameter', 'enableTestCommands=1'] });
  const client = await new MongoClient(mongod.uri, { serverSelectionTimeoutMS: 60_000 }).connect();
  const own = await Gateway.start({ MONGODB_URI: mongod.uri, MONGODB_DB: 'away', GITHUB_WEBHOOK_SECRET: SECRET });
  try {
    const db = client.db('away');
    await db.collection('tasks').insertOne({ _id: 't', repo: REPO, issueNumber: 1, status: 'coding', events: [] });
    let done = 0;
    const state = async () => {
      const { events } = await db.collection('tasks').findOne({ _id: 't' });
      return [events.length, await db.collection('tasks_github_deliveries').countDocuments()];
    };
    const send = (id) => deliver(own, 'pull_request', pullRequest('edited', { number: 1 }), { id });
    const redelivered = async (id) => {
      assert.deepEqual(await state(), [done, done], `nothing half-done: ${id}`);
      await until(async () => (await send(id)).status === 200, 'the redelivery', 60_000);
      done += 1;
      assert.deepEqual(await state(), [done, done], id);
      assert.deepEqual((await send(id)).body, { ok: true, duplicate: true });
    };

    mongod.signal('SIGSTOP');
    const frozen = await send('frozen');
    mongod.signal('SIGCONT');
    assert.deepEqual([frozen.status, frozen.body.error.code], [503, 'unavailable']);
    await redelivered('frozen');

    for (const command of ['find', 'insert', 'update', 'commitTransaction']) {
      const { count } = await client.db('admin').command({
        configureFailPoint: 'failCommand', mode: { times: 1 },
        data: { failCommands: [command], appName: 'taskcast', blockConnection: true, blockTimeMS: 60_000 },
      });
      const killed = send(command);
      await client.db('admin').command({ waitForFailPoint: 'failCommand', timesEntered: count + 1, maxTimeMS: 30_000 });
      mongod.signal('SIGKILL');
      const { status, body } = await killed;
      assert.deepEqual([status, body.error.code], [503, 'unavailable'], command);
      await mongod.restart();
      await redelivered(command);
    }
  } finally {
    await own.stop();
    await client.close();
    await mongod.stop();
  }
});

test('webhooks also work with the embedded store', async () => {
  const own = await Gateway.start({ GITHUB_WEBHOOK_SECRET: SECRET });
  try {
    const task = await createTask(own.url, await member('alice'), { repo: REPO });
    const issue = example('issues', 'opened');
    issue.issue.body = `For task ${task._id}.`;
    assert.equal((await deliver(own, 'issues', issue)).status, 200);
    const client = await Client.connect(own, watcher);
    await client.join(task._id);
    const payload = pullRequest('opened', { number: 7 });
    payload.pull_request.body = `Closes: https://github.com/${REPO}/issues/${issue.issue.number}`;
    const id = randomUUID();
    assert.equal((await deliver(own, 'pull_request', payload, { id })).status, 200);
    const opened = await client.waitForEvent('task:pr_opened');
    assert.equal(opened.prUrl, `https://github.com/${REPO}/pull/7`);
    await own.restart();
    assert.deepEqual((await deliver(own, 'pull_request', payload, { id })).body, { ok: true, duplicate: true });
  } finally {
    await own.stop();
  }
});

test('without a secret the route answers 503', async () => {
  const own = await Gateway.start({ GITHUB_WEBHOOK_SECRET: undefined });
  try {
    const answer = await deliver(own, 'ping', { zen: 'z' });
    assert.deepEqual([answer.status, answer.body.error.code], [503, 'unavailable']);
  } finally {
    await own.stop();
  }
});
