// Handoff under load: real clients join, lose their connection and resync while one writer writes as fast as it can.
// At the end, each client's copy must equal the database. The tests print rates, but do not assert them.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { LoadWriter } from './support/load-writer.js';
import { freshDatabase } from './support/mongo.js';
import { member } from './support/tokens.js';
import { test } from './support/scenario.js';
import { settles, until } from './support/until.js';
import { counts, fullView, summary, visible } from './expected.js';

const CLIENTS = 200;
const MIN_WRITES = 1500;
const MAX_WRITES = 12_000;
const TIMEOUT = 240_000;
const SEED = Number(process.env.TASKCAST_E2E_SEED ?? Math.floor(Math.random() * 2 ** 31));

let database;
let gateway;
let tasks;
let clients = [];

before(async () => {
  console.log(`seed ${SEED}`);
  database = await freshDatabase();
  tasks = database.tasks;
  gateway = await Gateway.start({ ...database.env, DASHBOARD_LIMIT: '1000' });
});
after(async () => {
  clients.forEach((client) => client.close());
  await gateway?.stop();
  await database?.close();
});

const orgOf = (n) => (n % 4 === 3 ? 'globex' : 'acme');

/** Connects clients to no room, each with its own user. A client that loses its connection reconnects and resyncs. */
async function connectClients(resync, org = () => 'acme') {
  clients.forEach((client) => client.close());
  clients = await Promise.all(Array.from({ length: CLIENTS }, async (_, n) => {
    const client = new Client(gateway, await member(`user-${n}`, org(n)), {
      keep: false, reconnection: true, reconnectionDelay: 20, reconnectionDelayMax: 200, transports: n % 5 === 4 ? ['polling', 'websocket'] : ['websocket'],
    });
    client.viewer = { user: `user-${n}`, org: org(n) };
    client.resyncs = [];
    await client.connected();
    client.socket.on('connect', () => resync(client, n).then((answer) => client.resyncs.push(answer), () => {}));
    return client;
  }));
}

function newTask(_id, n = 0) {
  return { _id, title: `task ${n}`, status: 'received', createdBy: 'somebody', orgId: 'acme', isPrivate: false, createdAt: new Date(), updatedAt: new Date(), events: [] };
}

/** A timeline that takes a moment to read, so that changes happen while the gateway reads a join's snapshot. */
const LONG_TIMELINE = Array.from({ length: 600 }, (_, n) => ({ eventType: 'earlier', payload: { n: `before ${n}` }, createdAt: new Date() }));

/** Writes while each client acts once at a random moment, until enough is written and each client is `done`. */
async function whileWriting({ ids, kind, act, done }) {
  const writer = new LoadWriter({ uri: database.uri, db: database.name, ids, kind, minWrites: MIN_WRITES, maxWrites: MAX_WRITES, seed: SEED });
  clients.forEach((client, n) => writer.at(Math.floor(Math.random() * MIN_WRITES), () => act(client, n)));
  await until(() => writer.result || (writer.writes >= MIN_WRITES && clients.every(done)),
    () => `${clients.filter(done).length} of ${CLIENTS} are done after ${writer.writes} writes`, TIMEOUT / 2);
  const { writes, ms } = await writer.stop();
  await until(() => clients.every(done), () => `${clients.filter(done).length} of ${CLIENTS} are done after the last write`, TIMEOUT / 4);
  console.log(`${kind}: ${writes} writes in ${ms} ms by one writer: ${Math.round((writes * 1000) / ms)}/s, ${CLIENTS} clients`);
}

const END = 'the end';

async function everyCopyIsTheTask(_id) {
  await tasks.updateOne({ _id }, { $set: { title: END, updatedAt: new Date() } });
  const copies = clients.map((client) => client.copy(_id));
  await until(() => copies.every(({ view }) => view?.title === END),
    () => `${copies.filter(({ view }) => view?.title === END).length} of ${CLIENTS} have seen the end`, TIMEOUT / 2);
  const expected = fullView(await tasks.findOne({ _id }));
  const entries = expected.events.map(({ payload }) => payload.n);
  for (const [n, { view: { eventsOmitted = 0, ...view } }] of copies.entries()) {
    assert.deepEqual(view.events.map(({ payload }) => payload.n), entries.slice(eventsOmitted), `client ${n}: the timeline`);
    assert.deepEqual(view, { ...expected, events: expected.events.slice(eventsOmitted) }, `client ${n}`);
  }
  clients.forEach((client) => client.assertInOrder());
  const cut = clients.reduce((sum, { disconnects }) => sum + disconnects.filter((reason) => reason !== 'forced close').length, 0);
  console.log(`${entries.length} timeline entries; connections that the gateway closed: ${cut}`);
}

/** A resync of this task. Half of the clients send `since`. */
const resyncTask = (_id) => async (client, n) => {
  const { last } = client.copy(_id);
  return client.ask('resync_requested', { taskIds: [_id], ...(n % 2 === 0 && last ? { since: last } : {}) });
};

test('200 clients join one task while it is written', async () => {
  const _id = 'joined-under-load';
  await tasks.insertOne({ ...newTask(_id), events: LONG_TIMELINE });
  await connectClients(resyncTask(_id));
  await whileWriting({
    ids: [_id], kind: 'task',
    act: (client) => client.socket.emit('task:join', { taskId: _id }),
    done: (client) => client.copy(_id).view,
  });
  await everyCopyIsTheTask(_id);
}, { timeout: TIMEOUT });

test('200 clients lose their connection and resync, with and without `since`', async () => {
  const _id = 'resynced-under-load';
  await tasks.insertOne({ ...newTask(_id), events: LONG_TIMELINE });
  await connectClients(resyncTask(_id));
  await Promise.all(clients.map((client) => client.join(_id)));
  await whileWriting({
    ids: [_id], kind: 'task',
    act: (client) => client.drop(),
    done: ({ resyncs }) => resyncs.length > 0,
  });
  await everyCopyIsTheTask(_id);
  const answers = clients.flatMap(({ resyncs }, n) => resyncs.map((answer) => ({ ...answer, since: n % 2 === 0 })));
  assert.deepEqual(answers.filter(({ ok }) => !ok), []);
  const recovered = answers.filter((answer) => answer.recovered).length;
  console.log(`${answers.length} resyncs, ${answers.filter(({ since }) => since).length} with since, ${recovered} recovered`);
  assert.ok(recovered > 0, 'some clients continue at their last event');
  assert.ok(answers.every((answer) => !answer.recovered || answer.since), 'only clients that sent `since` are recovered');
}, { timeout: TIMEOUT });

async function everyDashboardIsTheDatabase() {
  const _id = 'the-last-one';
  await tasks.insertMany(['acme', 'globex'].map((orgId) => ({ ...newTask(`${_id}-${orgId}`), orgId, title: END })));
  await until(() => clients.every(({ dashboard, viewer }) => dashboard.tasks.has(`${_id}-${viewer.org}`)),
    () => `${clients.filter(({ dashboard, viewer }) => dashboard.tasks.has(`${_id}-${viewer.org}`)).length} of ${CLIENTS} have seen the end`, TIMEOUT / 2);
  const documents = await tasks.find({}).toArray();
  for (const [n, { dashboard, viewer }] of clients.entries()) {
    const seen = documents.filter((document) => visible(document, viewer));
    const expected = new Map(seen.map((document) => [document._id, summary(document)]));
    assert.deepEqual([...dashboard.tasks.keys()].sort(), [...expected.keys()].sort(), `client ${n}: which tasks`);
    for (const [id, view] of dashboard.tasks) assert.deepEqual(view, expected.get(id), `client ${n}: ${id}`);
    await settles(() => assert.deepEqual(dashboard.counts, counts(seen), `client ${n}: counts`));
  }
  clients.forEach((client) => client.assertInOrder());
}

const resyncDashboard = async (client, n) => {
  const { last } = client.dashboard;
  const answer = await client.ask('resync_requested', { dashboard: true, ...(n % 2 === 0 && last ? { since: last } : {}) });
  return answer;
};

for (const [name, prepare, act, done] of [
  ['200 clients join the dashboard while many tasks are created, deleted, given to other users and made private',
    async () => {},
    (client) => client.joinDashboard().catch((error) => client.faults.push(error)),
    ({ dashboard }) => dashboard.states > 0 && dashboard.counts],
  ['200 clients lose their connection and resync the dashboard',
    (client) => client.joinDashboard(),
    (client) => client.drop(),
    ({ resyncs }) => resyncs.length > 0],
]) {
  test(name, async () => {
    await tasks.deleteMany({});
    const ids = Array.from({ length: 150 }, (_, n) => `task-${n}`);
    await tasks.insertMany(ids.map((_id, n) => ({ ...newTask(_id, n), createdBy: `user-${n}`, orgId: orgOf(n), isPrivate: n % 3 === 0 })));
    await connectClients(resyncDashboard, orgOf);
    await Promise.all(clients.map(prepare));
    await whileWriting({ ids, kind: 'many', act, done });
    await everyDashboardIsTheDatabase();
    const answers = clients.flatMap(({ resyncs }) => resyncs);
    assert.deepEqual(answers.filter(({ ok }) => !ok), []);
  }, { timeout: TIMEOUT });
}
