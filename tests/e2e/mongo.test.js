// An existing backend's database, written by the official driver: clients receive the exact history of changes.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { ObjectId } from 'mongodb';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { History } from './support/history.js';
import { api } from './support/http.js';
import { scrape } from './support/metrics.js';
import { freshDatabase } from './support/mongo.js';
import { member, pipeline } from './support/tokens.js';
import { test } from './support/scenario.js';
import { settles, until } from './support/until.js';
import { counts, fullView, summary, viewOf } from './expected.js';

let database;
let gateway;
let alice;
let watcher;
let tasks;

before(async () => {
  database = await freshDatabase();
  tasks = database.tasks;
  gateway = await Gateway.start(database.env);
  alice = await member('alice');
  watcher = await member('watcher');
});
after(async () => {
  await gateway?.stop();
  await database?.close();
});

const at = (second) => new Date(Date.UTC(2026, 0, 2, 3, 4, second));
const entry = (eventType, payload = {}) => ({ eventType, payload, createdAt: at(1) });
const sent = (eventType, payload = {}) => ({ eventType, payload, createdAt: '2026-01-02T03:04:01.000Z' });
const added = (eventType, payload) => ['task:event_added', { event: sent(eventType, payload) }];

async function insert(fields = {}) {
  const document = {
    _id: new ObjectId(), title: 'A task', status: 'received', createdBy: 'alice', creatorName: 'Alice', orgId: 'acme',
    isPrivate: false, createdAt: at(0), updatedAt: at(0), events: [], ...fields,
  };
  for (const [name, value] of Object.entries(document)) if (value === undefined) delete document[name];
  await tasks.insertOne(document);
  return document._id;
}

/** Runs `body` with a client that watches a new task. At the end, the client's copy must equal the document. */
async function watched(fields, body) {
  const id = await insert(fields);
  const history = await History.of(gateway, watcher, tasks, id);
  const update = (change, options) => tasks.updateOne({ _id: id }, change, options);
  try {
    await body({ history, id, update, gives: (expected, writes) => history.gives(expected, writes) });
    await settles(async () => {
      const document = await tasks.findOne({ _id: id });
      if (document) assert.deepEqual(history.client.copy(history.taskId).view, fullView(document));
    });
  } finally {
    history.close();
  }
}

test('the collection has pre- and post-images enabled, and the indexes', async () => {
  const [{ options }] = await database.db.listCollections({ name: 'tasks' }).toArray();
  assert.equal(options.changeStreamPreAndPostImages?.enabled, true);
  const keys = (await tasks.indexes()).map(({ key }) => JSON.stringify(key));
  for (const key of [{ status: 1 }, { createdBy: 1 }, { createdAt: -1 }, { 'events.eventType': 1 }]) {
    assert.ok(keys.includes(JSON.stringify(key)), `${JSON.stringify(key)} among ${keys}`);
  }
  assert.deepEqual((await gateway.health()).store, { kind: 'mongodb', ok: true });
});

test('each change of the whole life of a task gives its event', () => watched({}, async ({ gives, update }) => {
  await gives([['task:analyzing', { status: 'analyzing' }]], () => update({ $set: { status: 'analyzing', updatedAt: at(1) } }));
  await gives([['task:clarification_needed', { status: 'needs_clarification', questions: ['Which?'] }]],
    () => update({ $set: { status: 'needs_clarification', questions: ['Which?'] } }));
  await gives([
    ['task:clarified', { status: 'analyzing', clarificationAnswers: ['That'], issueUrl: null, issueNumber: null }],
    ['task:analyzing', { status: 'analyzing' }],
  ], () => update({ $set: { status: 'analyzing', clarificationAnswers: ['That'] } }));
  await gives([['task:dispatched', { status: 'dispatched', issueNumber: 42, issueUrl: 'https://x/42', githubBranch: 'task-42' }]],
    () => update({ $set: { status: 'dispatched', issueNumber: 42, issueUrl: 'https://x/42', githubBranch: 'task-42' } }));
  await gives([['task:coding', { status: 'coding' }]], () => update({ $set: { status: 'coding' } }));
  await gives([['task:pr_opened', { status: 'pr_open', prNumber: 7, prUrl: 'https://x/7', prTitle: 'It', prState: 'open' }]],
    () => update({ $set: { status: 'pr_open', prNumber: 7, prUrl: 'https://x/7', prTitle: 'It', prState: 'open' } }));
  await gives([
    ['task:pr_merged', { status: 'merged', mergeCommitSha: 'abc', mergedAt: '2026-01-02T03:04:09.000Z' }],
    ['task:updated', { status: 'merged', changed: { prState: 'merged' } }],
  ], () => update({ $set: { status: 'merged', mergeCommitSha: 'abc', mergedAt: at(9), prState: 'merged' } }));
}));

test('a failed task gives pr_closed with a closed pull request, else failed', async () => {
  await watched({ status: 'pr_open', prNumber: 7, prState: 'open' }, async ({ gives, update }) => {
    await gives([['task:pr_closed', { status: 'failed', prNumber: 7 }], ['task:updated', { status: 'failed', changed: { prState: 'closed' } }]],
      () => update({ $set: { status: 'failed', prState: 'closed' } }));
  });
  await watched({ status: 'pr_open', prNumber: 7 }, async ({ gives, update }) => {
    await gives([['task:failed', { status: 'failed', errorMessage: 'tests' }]], () => update({ $set: { status: 'failed', errorMessage: 'tests' } }));
  });
  await watched({}, async ({ gives, update }) => {
    await gives([['task:failed', { status: 'failed', errorMessage: null }]], () => update({ $set: { status: 'failed' } }));
  });
});

test('an unknown status and other fields give task:updated; hidden fields give nothing', () => watched({}, async ({ gives, update }) => {
  await gives([['task:updated', { status: 'on_hold', changed: { status: 'on_hold' } }]], () => update({ $set: { status: 'on_hold' } }));
  await gives([['task:updated', { status: 'received', changed: { status: 'received' } }]], () => update({ $set: { status: 'received' } }));
  await gives([['task:updated', { status: 'received', changed: { title: 'Renamed' } }]], () => update({ $set: { title: 'Renamed' } }));
  await gives([['task:updated', { status: 'received', changed: { prUrl: 'u', githubPrUrl: 'u' } }]], () => update({ $set: { githubPrUrl: 'u' } }));
  await gives([['task:updated', { status: 'received', changed: { prUrl: null, githubPrUrl: null } }]], () => update({ $unset: { githubPrUrl: '' } }));
  await gives([], () => update({ $set: { updatedAt: at(30) } }));
  await gives([], () => update({ $set: { internalNotes: 'secret', description: 'long', updatedAt: at(31) } }));
  await gives([], () => update({ $set: { title: 'Renamed' } }));
}));

test('one change of everything gives its events in a fixed order', () => watched({ status: 'needs_clarification', questions: ['?'] }, async ({ history, update }) => {
  const received = await history.during(() => update({
    $set: { status: 'analyzing', clarificationAnswers: ['a'], title: 'New', githubBranch: 'b', updatedAt: at(5) },
    $push: { events: { $each: [entry('one'), entry('two')] } },
  }));
  const mine = received.filter(({ payload, event }) => payload.taskId === history.taskId && event !== 'dashboard:task_count_changed');
  assert.deepEqual(mine.map(({ event }) => event),
    ['task:clarified', 'task:analyzing', 'task:updated', 'task:event_added', 'task:event_added', 'dashboard:task_list_updated']);
  assert.deepEqual(mine[2].payload.changed, { title: 'New', githubBranch: 'b' });
  const ids = mine.map(({ payload }) => payload.eventId);
  assert.deepEqual(ids, [...new Set(ids)].sort(), 'unique and in order');
  assert.deepEqual([...new Set(mine.map(({ payload }) => payload.updatedAt))], ['2026-01-02T03:04:05.000Z']);
  assert.deepEqual(viewOf(mine.at(-1).payload), summary({ ...(await tasks.findOne({ _id: history.id })), events: [] }));
}));

test('five statuses and three pushes, written without waiting, give each event in order', () => watched({}, async ({ history, id }) => {
  const writes = [
    { $set: { status: 'analyzing' } },
    { $push: { events: entry('a') } },
    { $set: { status: 'dispatched', issueNumber: 1 } },
    { $push: { events: entry('b') } },
    { $set: { status: 'coding' } },
    { $set: { status: 'pr_open', prNumber: 2 } },
    { $push: { events: entry('c') } },
    { $set: { status: 'merged' } },
  ];
  const expected = [
    ['task:analyzing', { status: 'analyzing' }],
    added('a'),
    ['task:dispatched', { status: 'dispatched', issueNumber: 1, issueUrl: null, githubBranch: null }],
    added('b'),
    ['task:coding', { status: 'coding' }],
    ['task:pr_opened', { status: 'pr_open', prNumber: 2, prUrl: null, prTitle: null, prState: null }],
    added('c'),
    ['task:pr_merged', { status: 'merged', mergeCommitSha: null, mergedAt: null }],
  ];
  await history.gives(expected, () => tasks.bulkWrite(writes.map((update) => ({ updateOne: { filter: { _id: id }, update } })), { ordered: true }));
}));

test('events of many concurrent writers come in the order of the oplog', () => watched({}, async ({ history, id }) => {
  const statuses = ['analyzing', 'dispatched', 'coding', 'pr_open', 'merged'];
  const room = await history.room(() => Promise.all([
    ...statuses.map((status) => tasks.updateOne({ _id: id }, { $set: { status } })),
    ...[1, 2, 3].map((n) => tasks.updateOne({ _id: id }, { $push: { events: entry('p', { n }) } })),
  ]));
  const oplog = database.client.db('local').collection('oplog.rs');
  const ops = await oplog.find({ ns: `${database.name}.tasks`, 'o2._id': id, op: 'u' }).sort({ ts: 1 }).toArray();
  const written = ops.map(({ o }) => JSON.stringify(o)).map((text) => text.match(/"status":"(\w+)"/)?.[1] ?? Number(text.match(/"n":(\d)/)?.[1])).slice(0, 8);
  const came = room.map(([, payload]) => payload.status ?? payload.event.payload.n);
  assert.deepEqual(came, written);
}));

test('timelines: pushes that append give one event for each entry', () => watched({}, async ({ gives, update }) => {
  await gives([added('first')], () => update({ $push: { events: entry('first') } }));
  await gives([added('x'), added('y'), added('z')], () => update({ $push: { events: { $each: [entry('x'), entry('y'), entry('z')] } } }));
  await gives([added('kept', { n: 1 })], () => update({ $push: { events: { $each: [entry('kept', { n: 1 })], $slice: -100 } } }));
  await gives([added('set')], () => update([{ $set: { events: { $concatArrays: ['$events', [entry('set')]] } } }]));
}));

test('timelines: changes that events cannot express send a state to the room', () => watched({ events: ['a', 'b', 'c'].map((name) => entry(name)) }, async ({ history, update }) => {
  const states = async (writes) => {
    const room = await history.room(writes);
    assert.deepEqual(room.map(([event]) => event), ['task:state'], JSON.stringify(room));
    return room[0][1].events.map(({ eventType, payload }) => payload.edited ?? eventType).filter((name) => name !== 'fence');
  };
  assert.deepEqual(await states(() => update({ $set: { 'events.0.payload.edited': 'a!' } })), ['a!', 'b', 'c']);
  assert.deepEqual(await states(() => update({ $pull: { events: { eventType: 'b' } } })), ['a!', 'c']);
  assert.deepEqual(await states(() => update({ $push: { events: { $each: [entry('early')], $position: 0 } } })), ['early', 'a!', 'c']);
  assert.deepEqual(await states(() => update({ $push: { events: { $each: [entry('last')], $slice: -2 } } })), ['last']);
  assert.deepEqual(await states(() => update({ $set: { events: [] } })), []);
  await history.gives([added('again')], () => update({ $push: { events: entry('again') } }));
}));

test('findOneAndUpdate, replaceOne and a pipeline update give events', () => watched({ prUrl: 'u', prTitle: 'T' }, async ({ gives, id }) => {
  await gives([['task:coding', { status: 'coding' }], added('e')],
    () => tasks.findOneAndUpdate({ _id: id }, { $set: { status: 'coding' }, $push: { events: entry('e') } }, { returnDocument: 'after' }));
  await gives([['task:updated', { status: 'coding', changed: { title: 'Replaced', prUrl: null, githubPrUrl: null, prTitle: null } }]], async () => {
    const { prUrl, prTitle, ...rest } = await tasks.findOne({ _id: id });
    await tasks.replaceOne({ _id: id }, { ...rest, title: 'Replaced' });
  });
  await gives([['task:failed', { status: 'failed', errorMessage: 'Replaced' }]],
    () => tasks.updateOne({ _id: id }, [{ $set: { status: 'failed', errorMessage: '$title' } }]));
}));

test('a transaction over two tasks gives every change of each, in order', async () => {
  const [one, two] = [await insert(), await insert()];
  const first = await History.of(gateway, watcher, tasks, one);
  const second = await History.of(gateway, watcher, tasks, two);
  const transaction = () => database.client.withSession((session) => session.withTransaction(async () => {
    await tasks.updateOne({ _id: one }, { $set: { status: 'analyzing' } }, { session });
    await tasks.updateOne({ _id: two }, { $set: { title: 'Two' } }, { session });
    await tasks.updateOne({ _id: one }, { $push: { events: entry('in it') } }, { session });
    await tasks.updateOne({ _id: two }, { $set: { status: 'coding' } }, { session });
    await tasks.updateOne({ _id: one }, { $set: { status: 'dispatched' } }, { session });
  }));
  const ofFirst = () => first.gives([
    ['task:analyzing', { status: 'analyzing' }],
    added('in it'),
    ['task:dispatched', { status: 'dispatched', issueNumber: null, issueUrl: null, githubBranch: null }],
  ], transaction);
  await second.gives([
    ['task:updated', { status: 'received', changed: { title: 'Two' } }],
    ['task:coding', { status: 'coding' }],
  ], ofFirst);
  [first, second].forEach((history) => history.close());
});

test('an aborted transaction gives nothing', () => watched({}, async ({ gives, id }) => {
  await gives([], () => database.client.withSession(async (session) => {
    session.startTransaction();
    await tasks.updateOne({ _id: id }, { $set: { status: 'coding' } }, { session });
    await session.abortTransaction();
  }));
}));

test('clients see an upsert, a delete, and a new task with the same id', async () => {
  const client = await Client.connect(gateway, watcher);
  await client.joinDashboard();
  const before = client.dashboard.counts;
  const _id = new ObjectId();
  const taskId = _id.toHexString();
  await tasks.updateOne({ _id }, { $set: { title: 'Upserted', status: 'received', createdBy: 'alice', orgId: 'acme', createdAt: at(2) } }, { upsert: true });
  const { eventId, occurredAt, updatedAt, ...created } = await client.waitForEvent('task:created', (one) => one.taskId === taskId);
  assert.deepEqual(created, { taskId, title: 'Upserted', creator: 'alice', status: 'received', createdAt: '2026-01-02T03:04:02.000Z' });
  assert.ok(eventId && occurredAt);
  await client.waitForEvent('dashboard:task_list_updated', (one) => one.taskId === taskId);
  await until(() => client.dashboard.counts.activeCount === before.activeCount + 1, () => JSON.stringify(client.dashboard.counts));
  await client.join(taskId);
  await tasks.deleteOne({ _id });
  await client.waitForEvent('task:deleted', (one) => one.taskId === taskId);
  await client.waitForEvent('dashboard:task_removed', (one) => one.taskId === taskId);
  await until(() => client.dashboard.counts.activeCount === before.activeCount, () => JSON.stringify(client.dashboard.counts));
  assert.equal((await client.ask('task:join', { taskId })).error?.code, 'not_found');

  // A new task has the same id. The members of the deleted task's room are not in its room.
  await insert({ _id, title: 'Reborn' });
  await client.waitForEvent('task:created', (one) => one.title === 'Reborn');
  assert.ok(client.copy(taskId).gone);
  client.assertInOrder();
  client.close();
});

test('string ids, strings that look like ObjectIds, and creators that are ObjectIds work', async () => {
  const creator = new ObjectId();
  const hex = new ObjectId().toHexString();
  for (const _id of ['task-1', 'with spaces/and:colons', 'ünïcode-✓', hex]) {
    await watched({ _id, createdBy: creator, creatorName: undefined }, async ({ history, gives, update }) => {
      assert.equal(history.client.copy(_id).view.createdBy, creator.toHexString());
      await gives([['task:coding', { status: 'coding' }]], () => update({ $set: { status: 'coding' } }));
      const answer = await api(gateway.url, 'GET', `/api/tasks/${encodeURIComponent(_id)}`, { token: watcher });
      assert.equal(answer.status, 200);
    });
  }
  const client = await Client.connect(gateway, await member(creator.toHexString(), 'elsewhere'));
  const _id = await insert({ createdBy: creator, isPrivate: true });
  await client.join(_id.toHexString());
  client.close();
});

test('of two _ids with the same text one is selected, and the log and a metric report it', async () => {
  await insert({ _id: 4711, title: 'The number' });
  await insert({ _id: '4711', title: 'The text' });
  const before = await scrape(gateway.url);
  const client = await Client.connect(gateway, watcher);
  await client.join('4711');
  assert.equal(client.copy('4711').view.title, 'The number');
  const { body } = await api(gateway.url, 'GET', '/api/tasks/4711', { token: watcher });
  assert.deepEqual([body._id, body.title], ['4711', 'The number']);
  assert.ok((await scrape(gateway.url)).since(before, 'taskcast_ambiguous_ids_total') > 0);
  await gateway.waitForLog(/two documents have _ids of different types with the same text/);
  client.close();
  await tasks.deleteMany({ _id: { $in: [4711, '4711'] } });
});

test('both sets of field names and unusual documents are shown, and hidden fields are never sent', async () => {
  const documents = [
    { githubIssueNumber: 1, githubIssueUrl: 'i', githubPrNumber: 2, githubPrUrl: 'p', clarificationQuestions: ['q'], llmSummary: 'S', title: undefined },
    { issueNumber: 1, issueUrl: 'i', prNumber: 2, prUrl: 'p', questions: ['q'] },
    { issueUrl: 'wins', githubIssueUrl: 'loses', title: 'wins', llmSummary: 'loses' },
    { events: undefined }, { events: null }, { isPrivate: undefined }, { creatorName: undefined },
    { events: [{ ...entry('p', { ref: new ObjectId(), when: at(3), deep: [{ when: at(4) }], API_KEY: 'k', headers: { Cookie: 'c', 'Set-Cookie': 'c', accept: '*' }, clientSecret: 's', ok: true, n: 1.5 }), _id: new ObjectId(), internal: 'x' }] },
    { events: [{ eventType: 'no payload', createdAt: at(1) }, { eventType: 'null', payload: null, createdAt: at(1) }] },
    { passwordHash: 'never', internal: { deep: 'never' }, description: 'never' },
    { title: '\u2028 </script> "quotes" \\ \u{1f600} \u0000 end' },
  ];
  const client = await Client.connect(gateway, watcher);
  await client.joinDashboard();
  for (const fields of documents) {
    const id = await insert(fields);
    const taskId = id.toHexString();
    await client.join(taskId);
    const document = await tasks.findOne({ _id: id });
    assert.deepEqual(client.copy(taskId).view, fullView(document), JSON.stringify(fields));
    const listed = await client.waitForEvent('dashboard:task_list_updated', (one) => one.taskId === taskId);
    assert.deepEqual(viewOf(listed), summary(document));
    const { body } = await api(gateway.url, 'GET', `/api/tasks/${taskId}`, { token: watcher });
    assert.deepEqual(viewOf(body), fullView(document));
  }
  assert.ok(!JSON.stringify(client.received).includes('never'));
  client.assertInOrder();
  client.close();
});

test('the dashboard and its counts equal the database', async () => {
  const client = await Client.connect(gateway, watcher);
  await client.joinDashboard();
  await settles(async () => {
    const documents = await tasks.find({}).toArray();
    const seen = documents.filter(({ orgId, isPrivate }) => orgId === 'acme' && !isPrivate);
    assert.deepEqual(client.dashboard.tasks, new Map(seen.map((document) => [summary(document).taskId, summary(document)])));
    assert.deepEqual(client.dashboard.counts, counts(seen));
  });
  client.close();
});

test('with MongoDB, the HTTP API reads, and writes only with FEATURE_TASK_API=full', async () => {
  const id = (await insert({ githubPrNumber: 5, createdBy: new ObjectId() })).toHexString();
  const writer = await pipeline();
  assert.equal((await api(gateway.url, 'GET', `/api/tasks/${id}`, { token: alice })).status, 200);
  assert.equal((await api(gateway.url, 'PATCH', `/api/tasks/${id}`, { token: writer, body: { prNumber: 6 } })).body.error.code, 'feature_disabled');
  const full = await Gateway.start({ ...database.env, FEATURE_TASK_API: 'full' });
  try {
    const before = await tasks.findOne({ _id: new ObjectId(id) });
    await api(full.url, 'PATCH', `/api/tasks/${id}`, { token: writer, body: { prNumber: 6, issueNumber: 9, event: { eventType: 'e', payload: {} } } });
    const { updatedAt, events, ...after } = await tasks.findOne({ _id: new ObjectId(id) });
    const { updatedAt: _, events: __, ...unchanged } = before;
    assert.deepEqual(after, { ...unchanged, githubPrNumber: 6, githubIssueNumber: 9 }, 'the field name of the document is kept, else the github name is used');
    assert.ok(updatedAt instanceof Date && updatedAt > before.updatedAt);
    assert.ok(events[0].createdAt instanceof Date);
  } finally {
    await full.stop();
  }
});

test('two nodes, and a restarted node, give the same eventIds', async () => {
  const id = await insert();
  const other = await Gateway.start(database.env);
  try {
    const histories = [await Client.connect(gateway, watcher), await Client.connect(other, watcher)];
    for (const client of histories) {
      await client.join(id.toHexString());
      client.received.length = 0;
    }
    const { last } = histories[0].copy(id.toHexString());
    await tasks.bulkWrite(['analyzing', 'coding', 'failed'].map((status) => ({ updateOne: { filter: { _id: id }, update: { $set: { status }, $push: { events: { $each: [entry('e'), entry('f')] } } } } })));
    for (const client of histories) await client.waitForEvent('task:event_added', () => client.all('task:event_added').length === 6);
    assert.deepEqual(histories[1].received, histories[0].received);
    await other.restart();
    const again = await Client.connect(other, watcher);
    const answer = await again.ask('resync_requested', { taskIds: [id.toHexString()], since: last });
    assert.equal(answer.ok, true);
    if (answer.recovered) {
      await again.waitForEvent('task:event_added', () => again.all('task:event_added').length === 6);
      assert.deepEqual(again.received, histories[0].received);
    } else {
      await again.waitForEvent('task:state');
    }
    [...histories, again].forEach((client) => client.close());
  } finally {
    await other.stop();
  }
});
