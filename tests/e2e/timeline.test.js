// Long timelines: a state has the newest entries and the number of omitted ones, and the HTTP API serves those in pages.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { Client } from './support/client.js';
import { Gateway, withGateway } from './support/gateway.js';
import { api, createTask, patchTask } from './support/http.js';
import { freshDatabase } from './support/mongo.js';
import { start } from './support/processes.js';
import { binary } from './support/paths.js';
import { member, pipeline } from './support/tokens.js';
import { test } from './support/scenario.js';
import { settles, until } from './support/until.js';
import { fullView, viewOf } from './expected.js';

const ENTRIES = 20_000;
/** The default of TIMELINE_LIMIT. */
const LIMIT = 1000;

let database;
let gateway;
let tasks;
let alice;
let bob;

before(async () => {
  database = await freshDatabase();
  tasks = database.tasks;
  gateway = await Gateway.start(database.env);
  [alice, bob] = await Promise.all([member('alice'), member('bob')]);
});
after(async () => {
  await gateway?.stop();
  await database?.close();
});

const entry = (n, more = {}) => ({ eventType: 'step', payload: { n, accessToken: 'very secret', text: 'x'.repeat(80) }, createdAt: new Date(n), ...more });
const numbers = (events) => events.map(({ payload }) => payload.n);
const range = (from, to) => Array.from({ length: to - from }, (_, n) => from + n);

async function insert(_id, entries) {
  const now = new Date();
  await tasks.insertOne({ _id, title: 'long', status: 'coding', createdBy: 'alice', orgId: 'acme', isPrivate: false, createdAt: now, updatedAt: now, events: range(0, entries).map((n) => entry(n)) });
}

/** Fetches all entries before a position, page by page, and returns them oldest first. */
async function fetchBefore(url, token, taskId, place, limit) {
  const all = [];
  for (let before = place; before !== null;) {
    const page = await api(url, 'GET', `/api/tasks/${taskId}/events?before=${before}&limit=${limit}`, { token });
    assert.equal(page.status, 200, page.text);
    all.unshift(...page.body.events);
    before = page.body.nextBefore;
  }
  return all;
}

const counted = ({ eventsOmitted = 0, events }) => eventsOmitted + events.length;

test('20,000 entries: the state has the newest, pages have the rest, and no entry is missing while the timeline grows', async () => {
  await insert('long', ENTRIES);
  const client = await Client.connect(gateway, bob);
  const writing = (async () => {
    for (let n = ENTRIES; n < ENTRIES + 20; n += 1) await tasks.updateOne({ _id: 'long' }, { $push: { events: entry(n) }, $set: { updatedAt: new Date(n) } });
  })();
  await client.join('long');
  const [state] = client.all('task:state');
  assert.equal(state.events.length, LIMIT);
  assert.ok(JSON.stringify(state).length < 250_000);
  assert.equal(numbers(state.events)[0], state.eventsOmitted, 'the state has the newest entries, and eventsOmitted counts those before them');
  await writing;
  const { view } = client.copy('long');
  await until(() => counted(view) === ENTRIES + 20, () => `${counted(view)} entries`);
  const older = await fetchBefore(gateway.url, bob, 'long', view.eventsOmitted, 1000);
  const { eventsOmitted, ...rest } = view;
  assert.equal(older.length, eventsOmitted);
  const expected = fullView(await tasks.findOne({ _id: 'long' }));
  assert.deepEqual({ ...rest, events: [...older, ...rest.events] }, expected);
  assert.ok(!JSON.stringify([older, view]).includes('very secret'));
  const whole = await api(gateway.url, 'GET', '/api/tasks/long', { token: bob });
  assert.deepEqual(viewOf(whole.body), expected, 'GET /api/tasks/{id} has the whole timeline');
  assert.equal(client.copy('long').states, 1);
  client.assertInOrder();
  client.close();
});

test('after a timeline is rewritten, the room gets the newest entries, and pages have the older entries of the new timeline', async () => {
  await insert('rewritten', 2500);
  const client = await Client.connect(gateway, bob);
  await client.join('rewritten');
  assert.equal(client.copy('rewritten').view.eventsOmitted, 1500);
  for (const [update, entries] of [
    [{ $set: { 'events.0.payload.n': -1 } }, [-1, ...range(1, 2500)]],
    [{ $pull: { events: { 'payload.n': { $lt: 500 } } } }, range(500, 2500)],
    [{ $push: { events: { $each: [entry(2500)], $slice: -1001 } } }, range(1500, 2501)],
    [{ $push: { events: { $each: [entry(2501)], $slice: -1000 } } }, range(1502, 2502)],
    [{ $set: { events: [entry(7)] } }, [7]],
  ]) {
    const { states } = client.copy('rewritten');
    await tasks.updateOne({ _id: 'rewritten' }, update);
    await until(() => client.copy('rewritten').states === states + 1, () => `a state after ${JSON.stringify(update).slice(0, 100)}`);
    const { view } = client.copy('rewritten');
    assert.deepEqual(numbers(view.events), entries.slice(-LIMIT));
    assert.equal(view.eventsOmitted, entries.length > LIMIT ? entries.length - LIMIT : undefined);
    const older = view.eventsOmitted ? await fetchBefore(gateway.url, bob, 'rewritten', view.eventsOmitted, 700) : [];
    assert.deepEqual([...numbers(older), ...numbers(view.events)], entries);
    assert.ok(!JSON.stringify([older, view]).includes('very secret'));
  }
  // An entry that is appended after such a state has its own event.
  await tasks.updateOne({ _id: 'rewritten' }, { $push: { events: entry(8) } });
  await settles(() => assert.deepEqual(numbers(client.copy('rewritten').view.events), [7, 8]));
  client.assertInOrder();
  client.close();
});

test('TIMELINE_LIMIT holds with the embedded store for joins, resyncs, `since` and pages', () => withGateway({ TIMELINE_LIMIT: '3' }, async (small) => {
  const writer = await pipeline();
  const { taskId } = await createTask(small.url, alice);
  const push = (n) => patchTask(small.url, writer, taskId, { event: { eventType: 'step', payload: { n } } });
  for (let n = 0; n < 3; n += 1) await push(n);
  const client = await Client.connect(small, bob);
  await client.join(taskId);
  assert.ok(!('eventsOmitted' in client.all('task:state')[0]), 'nothing is left out');
  for (let n = 3; n < 10; n += 1) await push(n);
  await until(() => client.copy(taskId).view.events.length === 10, 'ten entries');
  const { last } = client.copy(taskId);

  await client.ask('resync_requested', { taskIds: [taskId] });
  await until(() => client.copy(taskId).states === 2, 'a second state');
  const { view } = client.copy(taskId);
  assert.deepEqual([numbers(view.events), view.eventsOmitted], [[7, 8, 9], 7]);
  client.close();

  await push(10);
  const again = await Client.connect(small, bob);
  assert.equal((await again.ask('resync_requested', { taskIds: [taskId], since: last })).recovered, true);
  await again.waitForEvent('task:event_added', ({ event }) => event.payload.n === 10);
  assert.deepEqual(again.all('task:state'), []);
  again.close();

  for (const limit of [1, 2, 3, 7, 1000]) assert.deepEqual(numbers(await fetchBefore(small.url, bob, taskId, view.eventsOmitted, limit)), range(0, 7));
  const stranger = await member('eve', 'globex');
  assert.equal((await api(small.url, 'GET', `/api/tasks/${taskId}/events`, { token: stranger })).status, 404);
  assert.equal((await api(small.url, 'GET', `/api/tasks/${taskId}/events`)).status, 401);

  const tail = start(binary(), ['tail', '--url', small.url, '--token', bob, '--task', taskId], { stdio: ['ignore', 'pipe', 'pipe'] });
  let printed = '';
  tail.stdout.on('data', (text) => (printed += text));
  await until(() => /task:state .*"events":11,/.test(printed), () => `the number of all entries: ${printed}`);
  tail.kill();
  await tail.exited;
}));
