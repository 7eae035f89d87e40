// No client receives any byte about a task that it may not see, while privacy, owners and organisations of tasks change and
// clients stay in rooms, join, leave, resync, and use the HTTP API.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { ObjectId } from 'mongodb';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { api, createTask, patchTask } from './support/http.js';
import { scrape } from './support/metrics.js';
import { freshDatabase } from './support/mongo.js';
import { member, pipeline, sign } from './support/tokens.js';
import { test } from './support/scenario.js';
import { settles, until } from './support/until.js';
import { Wire } from './support/wire.js';
import { counts, fullView, summary, visible } from './expected.js';

const WRITES = 500;
const TASKS = 12;
/** Measurements for each of the two compared durations. */
const SAMPLES = 80;
const SEED = Number(process.env.TASKCAST_E2E_SEED ?? Math.floor(Math.random() * 2 ** 31));
const MARKER = /mk\d+k/g;
const USERS = { alice: 'acme', bob: 'acme', carol: 'globex', dave: 'globex', erin: null };
const STATUSES = ['received', 'analyzing', 'dispatched', 'coding', 'pr_open', 'merged', 'failed'];

let database;
let gateway;
let tasks;

before(async () => {
  console.log(`seed ${SEED}`);
  database = await freshDatabase();
  tasks = database.tasks;
  gateway = await Gateway.start({ ...database.env, FEATURE_TASK_API: 'full', JOIN_RATE_PER_SECOND: '1000' });
});
after(async () => {
  await gateway?.stop();
  await database?.close();
});

let state = SEED;
const random = (n) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
};
const pick = (items) => items[random(items.length)];
let markers = 0;
const marker = () => `mk${(markers += 1)}k`;

class Viewer {
  static async of(user, org) {
    const viewer = new Viewer();
    viewer.user = user;
    viewer.org = org;
    viewer.token = await sign({ sub: user, orgId: org ?? undefined });
    viewer.wire = new Wire();
    viewer.client = new Client(gateway, viewer.token, { reconnection: true, reconnectionDelay: 20, reconnectionDelayMax: 50 });
    viewer.wire.tap(viewer.client.socket);
    await viewer.client.connected();
    return viewer;
  }

  /** Markers that the viewer may receive: those of each version of a task that it could see at that time. */
  allowed = new Set();
  /** Counts that were true for this viewer at some time. */
  trueCounts = new Set();

  /** Runs one random action of a client. */
  async act(ids) {
    const { client, wire } = this;
    const taskId = pick(ids);
    const headers = { authorization: `Bearer ${this.token}` };
    switch (random(8)) {
      case 0: case 1: return client.ask('task:join', { taskId });
      case 2: return client.ask('task:leave', { taskId });
      case 3: return wire.http(`${gateway.url}/api/tasks/${taskId}${pick(['', '/events', '/events?before=3&limit=2'])}`, { headers });
      case 4: return wire.http(`${gateway.url}/api/tasks?limit=${1 + random(20)}`, { headers });
      case 5: return client.ask('resync_requested', { taskIds: [taskId, pick(ids)], dashboard: random(2) === 0 });
      case 6: {
        const { last } = client.copy(taskId);
        client.drop();
        await until(() => client.socket.connected, 'reconnected');
        await client.ask('resync_requested', { dashboard: true });
        return client.ask('resync_requested', { taskIds: [taskId], ...(last ? { since: last } : {}) });
      }
      default: return client.ask('resync_requested');
    }
  }
}

/** Values for each kind of field, each with its own marker. */
function content() {
  return {
    title: `title ${marker()}`, llmSummary: `never ${hiddenMarker()}`, prTitle: marker(), errorMessage: marker(), githubBranch: marker(), creatorName: marker(), prUrl: `https://x/${marker()}`,
    questions: [marker()], clarificationAnswers: [marker()], description: hiddenMarker(), internal: { deep: [hiddenMarker()] }, updatedAt: new Date(),
  };
}
const entry = () => ({ eventType: marker(), payload: { text: marker(), deep: [{ note: marker(), apiKey: hiddenMarker() }], token: hiddenMarker() }, hidden: hiddenMarker(), createdAt: new Date() });

/** Markers of fields that no client may receive. */
const hidden = new Set();
function hiddenMarker() {
  const text = marker();
  hidden.add(text);
  return text;
}

const newTask = (_id) => ({ _id, ...content(), status: 'received', createdBy: pick(Object.keys(USERS)), orgId: pick(['acme', 'globex']), isPrivate: random(2) === 0, createdAt: new Date(), events: [entry()] });

/** One random change. A change that may let more users see the task also replaces or empties its earlier contents. */
function change() {
  const set = content();
  switch (random(9)) {
    case 0: return { $set: { ...set, isPrivate: true } };
    case 1: case 2: return { $set: { ...set, isPrivate: false, events: [] } };
    case 3: return { $set: { ...set, createdBy: pick(Object.keys(USERS)), events: [] } };
    case 4: return { $set: { ...set, orgId: pick(['acme', 'globex']), events: random(2) ? [] : [entry()] } };
    case 5: return { $set: { ...set, isPrivate: random(2) === 0, orgId: pick(['acme', 'globex']), createdBy: pick(Object.keys(USERS)), events: [] } };
    case 6: return { $push: { events: { $each: [entry(), entry()] } } };
    default: return { $set: { ...set, status: pick(STATUSES) }, $push: { events: entry() } };
  }
}

test('no client receives what it may not see while tasks change their organisation, owner and privacy', async () => {
  const ids = Array.from({ length: TASKS }, () => new ObjectId().toHexString());
  const viewers = await Promise.all(Object.entries(USERS).map(([user, org]) => Viewer.of(user, org)));
  // This client only watches the dashboard and never names a task. It must not even learn the ids of tasks that it could never see.
  const quiet = await Viewer.of('quiet', 'globex');
  const everybody = [...viewers, quiet];
  const documents = new Map();
  const knownToQuiet = new Set();

  const remember = () => {
    for (const viewer of everybody) {
      const seen = [...documents.values()].filter((document) => visible(document, viewer));
      for (const document of seen) for (const text of JSON.stringify(document).match(MARKER)) viewer.allowed.add(text);
      viewer.trueCounts.add(JSON.stringify(counts(seen)));
    }
    for (const document of documents.values()) if (visible(document, quiet)) knownToQuiet.add(String(document._id));
  };
  // The model is updated before the write, so that no client can see a change before the model allows it.
  const put = async (document) => {
    documents.set(String(document._id), document);
    remember();
    await tasks.replaceOne({ _id: document._id }, document, { upsert: true });
  };
  remember();
  // `quiet` may never see these tasks, whatever happens to the others.
  const never = await Promise.all([0, 1, 2].map(async (n) => {
    const document = { ...newTask(new ObjectId()), orgId: n === 0 ? 'globex' : 'acme', isPrivate: n === 0, createdBy: 'alice' };
    await put(document);
    return String(document._id);
  }));
  for (const id of ids) await put(newTask(new ObjectId(id)));
  for (const viewer of everybody) await viewer.client.joinDashboard();

  let writing = true;
  const acting = viewers.map(async (viewer) => {
    while (writing) await viewer.act([...ids, ...never]);
  });
  for (let n = 0; n < WRITES; n += 1) {
    const id = pick(ids);
    const _id = new ObjectId(id);
    const old = documents.get(id);
    if (!old) {
      await put(newTask(_id));
    } else if (random(15) === 0) {
      documents.delete(id);
      remember();
      await tasks.deleteOne({ _id });
    } else {
      const update = change();
      const pushed = update.$push?.events.$each ?? (update.$push ? [update.$push.events] : []);
      const next = { ...old, ...update.$set };
      documents.set(id, { ...next, events: [...next.events, ...pushed] });
      remember();
      await tasks.updateOne({ _id }, update);
    }
    if (n % 10 === 0) {
      const told = pick(never);
      const update = { $set: content(), $push: { events: entry() } };
      const { events, ...rest } = documents.get(told);
      documents.set(told, { ...rest, ...update.$set, events: [...events, update.$push.events] });
      remember();
      await tasks.updateOne({ _id: new ObjectId(told) }, update);
    }
  }
  writing = false;
  await Promise.all(acting);

  // The model equals the database, and the clients' copies equal the model.
  const stored = await tasks.find({}).toArray();
  assert.deepEqual(new Map(stored.map((document) => [String(document._id), fullView(document)])), new Map([...documents].map(([id, document]) => [id, fullView(document)])));
  for (const viewer of everybody) {
    const seen = stored.filter((document) => visible(document, viewer));
    const expected = new Map(seen.map((document) => [String(document._id), summary(document)]));
    await settles(() => assert.deepEqual(viewer.client.dashboard.tasks, expected, `${viewer.user}: the list`));
    await settles(() => assert.deepEqual(viewer.client.dashboard.counts, counts(seen), `${viewer.user}: the counts`));
  }

  for (const viewer of everybody) {
    const { text } = viewer.wire;
    const sent = new Set(text.match(MARKER) ?? []);
    const leaked = [...sent].filter((one) => !viewer.allowed.has(one) || hidden.has(one));
    assert.deepEqual(leaked.slice(0, 3).map((one) => text.slice(Math.max(0, text.indexOf(one) - 300), text.indexOf(one) + 60)), [], `${viewer.user} received what it may not see`);
    if (viewer.org !== null) assert.ok(sent.size > 100, `${viewer.user} received only ${sent.size} markers: the test must not pass because nothing was sent`);
    for (const [, told] of text.matchAll(/("activeCount":\d+,"completedCount":\d+,"failedCount":\d+)/g)) {
      assert.ok(viewer.trueCounts.has(`{${told}}`), `${viewer.user} received counts that were never true for it: ${told}`);
    }
  }
  for (const id of [...ids, ...never].filter((one) => !knownToQuiet.has(one))) assert.ok(!quiet.wire.text.includes(id), `quiet received the id of a task that it could never see: ${id}`);
  assert.ok(never.every((id) => !knownToQuiet.has(id)));
  everybody.forEach(({ client }) => client.close());
}, { timeout: 180_000 });

test('every request gets the same answer for a forbidden task as for a missing task', async () => {
  const forbidden = new ObjectId().toHexString();
  const absent = new ObjectId().toHexString();
  await tasks.insertOne({ ...newTask(new ObjectId(forbidden)), createdBy: 'alice', orgId: 'acme', isPrivate: true, status: 'needs_clarification' });
  const alice = await Client.connect(gateway, await member('alice'));
  await alice.join(forbidden);
  const bob = await member('bob');
  const foreign = await pipeline('globex');
  const client = await Client.connect(gateway, bob);

  const alike = async (what, ask) => {
    const normal = (answer, id) => JSON.stringify(answer).replaceAll(id, '<id>');
    assert.equal(normal(await ask(forbidden), forbidden), normal(await ask(absent), absent), what);
  };
  for (const event of ['task:join', 'task:leave']) await alike(event, (taskId) => client.ask(event, { taskId }));
  await alike('resync', (taskId) => client.ask('resync_requested', { taskIds: [taskId] }));
  const since = alice.copy(forbidden).last;
  await alike('resync with since', (taskId) => client.ask('resync_requested', { taskIds: [taskId], since }));
  await alike('task:join without an ack', async (taskId) => {
    client.received.length = 0;
    client.socket.emit('task:join', { taskId });
    return client.waitForEvent('error');
  });
  const http = (token, method, path, body) => async (id) => {
    const { status, text, headers } = await api(gateway.url, method, path(id), { token, body });
    return [status, text, [...headers.keys()].filter((name) => name !== 'date').sort(), headers.get('content-length')];
  };
  await alike('GET', http(bob, 'GET', (id) => `/api/tasks/${id}`));
  await alike('a page of the timeline', http(bob, 'GET', (id) => `/api/tasks/${id}/events?before=2`));
  await alike('clarify', http(bob, 'POST', (id) => `/api/tasks/${id}/clarify`, { answers: ['x'] }));
  await alike('PATCH', http(foreign, 'PATCH', (id) => `/api/tasks/${id}`, { status: 'coding' }));
  // The same change is a conflict for a user who may see the task.
  assert.equal((await api(gateway.url, 'PATCH', `/api/tasks/${forbidden}`, { token: foreign, body: { status: 'received' } })).status, 404);
  assert.equal((await api(gateway.url, 'PATCH', `/api/tasks/${forbidden}`, { token: await pipeline(), body: { status: 'received' } })).status, 409);
  assert.equal((await client.ask('task:join', { taskId: forbidden })).error.code, 'not_found');
  assert.deepEqual(client.received.filter(({ event }) => event !== 'error'), []);
  [alice, client].forEach((one) => one.close());
});

test('a join reads the task at once when others in its room see the same; a refused join reads only the access fields', async () => {
  const _id = new ObjectId();
  const taskId = _id.toHexString();
  await tasks.insertOne({ ...newTask(_id), createdBy: 'alice', orgId: 'acme', isPrivate: false });
  const [alice, bob, carol] = await Promise.all([['alice'], ['bob'], ['carol', 'globex']].map(async (user) => Client.connect(gateway, await member(...user))));
  const reads = async (ask) => {
    const before = await scrape(gateway.url);
    await ask();
    const after = await scrape(gateway.url);
    return ['access', 'task'].map((operation) => after.since(before, 'taskcast_store_seconds_count', { operation }));
  };
  assert.deepEqual(await reads(() => alice.join(taskId)), [1, 1]);
  assert.deepEqual(await reads(() => bob.join(taskId)), [0, 1]);
  const isRefused = async (client) => assert.equal((await client.ask('task:join', { taskId })).error.code, 'not_found');
  assert.deepEqual(await reads(() => isRefused(carol)), [1, 0]);
  await tasks.updateOne({ _id }, { $set: { isPrivate: true } });
  await bob.waitForEvent('task:deleted');
  assert.deepEqual(await reads(() => isRefused(bob)), [1, 0]);
  await tasks.updateOne({ _id }, { $set: { isPrivate: false, createdBy: 'carol', orgId: 'globex' } });
  await alice.waitForEvent('task:deleted');
  assert.deepEqual(await reads(() => carol.join(taskId)), [1, 1], 'the room is empty');
  [alice, bob, carol].forEach((client) => client.close());
});

test('lists, cursors and counts are the same as if hidden tasks did not exist', async () => {
  const [alice, user] = [await member('alice', 'hooli'), `user-${SEED}`];
  const token = await member(user, 'hooli');
  const at = (n) => new Date(1_700_000_000_000 + n);
  const own = Array.from({ length: 3 }, (_, n) => ({ ...newTask(new ObjectId()), createdBy: user, orgId: 'hooli', isPrivate: false, createdAt: at(n * 10), status: 'coding' }));
  await tasks.insertMany(own);
  const seen = async () => {
    const client = await Client.connect(gateway, token);
    const { tasks: listed, counts: counted } = await client.ask('dashboard:join');
    client.close();
    const answers = [];
    // A cursor names the position of a task. A client may send the position of a task that it cannot see.
    const places = ['', ...own.map(({ _id, createdAt }) => `${createdAt.getTime()}:${_id}`), ...hiddenPlaces].map((place) => place && Buffer.from(place).toString('base64url'));
    for (const query of ['', '&status=coding', '&status=failed', '&creator=alice', `&creator=${user}`]) {
      for (const cursor of places) {
        const { status, text } = await api(gateway.url, 'GET', `/api/tasks?limit=2${query}&cursor=${cursor}`, { token });
        // The position of a list changes with every write of any task, as that of a dashboard does.
        answers.push([status, text.replace(/"eventId":"[0-9a-f-]+"/, '"eventId":"…"')]);
      }
    }
    return JSON.stringify([listed, counted, answers]);
  };
  const hiddenTasks = [5, 15, 25, 35].map((n) => ({ ...newTask(new ObjectId()), createdBy: 'alice', orgId: 'hooli', isPrivate: true, createdAt: at(n), status: n < 20 ? 'coding' : 'failed' }));
  const hiddenPlaces = hiddenTasks.map(({ _id, createdAt }) => `${createdAt.getTime()}:${_id}`);
  const before = await seen();
  await tasks.insertMany(hiddenTasks);
  assert.equal((await api(gateway.url, 'GET', '/api/tasks?limit=200', { token: alice })).body.tasks.filter(({ orgId }) => orgId === 'hooli').length, 7, 'the owner sees all seven');
  assert.equal(await seen(), before);
});

test('acknowledgements come in the order of the requests, however much each has to read', async () => {
  const [forbidden, absent, large] = [0, 1, 2].map(() => new ObjectId());
  const entries = Array.from({ length: 10 }, () => ({ eventType: 'log', payload: { text: 'x'.repeat(12_000) }, createdAt: new Date() }));
  await tasks.insertMany([
    { ...newTask(forbidden), createdBy: 'alice', orgId: 'acme', isPrivate: true, events: entries },
    { ...newTask(large), createdBy: 'bob', orgId: 'acme', events: entries },
  ]);
  const client = await Client.connect(gateway, await member('bob'));
  const asked = Array.from({ length: 60 }, (_, n) => [forbidden, absent, large][n % 3]);
  const came = [];
  await Promise.all(asked.map(async (taskId, n) => came.push([n, (await client.ask('task:join', { taskId: String(taskId) })).ok])));
  assert.deepEqual(came, asked.map((taskId, n) => [n, taskId === large]));
  client.close();
});

for (const store of ['mongodb', 'embedded']) {
  test(`refusing a large forbidden task takes no longer than refusing a missing one (${store})`, async () => {
    const embedded = store === 'embedded' ? await Gateway.start({ JOIN_RATE_PER_SECOND: '10000' }) : undefined;
    const place = embedded ?? gateway;
    try {
      const absent = new ObjectId().toHexString();
      const { taskId: forbidden } = await createTask(place.url, await member('alice'), { isPrivate: true, description: 'x'.repeat(20_000) });
      const writer = await pipeline();
      for (let n = 0; n < 40; n += 1) await patchTask(place.url, writer, forbidden, { event: { eventType: 'log', payload: { text: 'x'.repeat(60_000) } } });
      const [bob, foreign] = [await member('bob'), await pipeline('globex')];
      const client = await Client.connect(place, bob);
      const ways = {
        'task:join': (taskId) => client.ask('task:join', { taskId }),
        resync: (taskId) => client.ask('resync_requested', { taskIds: [taskId] }),
        GET: (id) => api(place.url, 'GET', `/api/tasks/${id}`, { token: bob }),
        'a page of the timeline': (id) => api(place.url, 'GET', `/api/tasks/${id}/events?limit=1000`, { token: bob }),
        clarify: (id) => api(place.url, 'POST', `/api/tasks/${id}/clarify`, { token: bob, body: { answers: ['x'] } }),
        PATCH: (id) => api(place.url, 'PATCH', `/api/tasks/${id}`, { token: foreign, body: { title: 'x' } }),
      };
      for (const [name, way] of Object.entries(ways)) {
        // The requests alternate, so that other load affects both alike. The median ignores outliers.
        const took = { [forbidden]: [], [absent]: [] };
        for (let n = 0; n < SAMPLES; n += 1) {
          for (const id of n % 2 ? [forbidden, absent] : [absent, forbidden]) {
            const begun = performance.now();
            await way(id);
            took[id].push(performance.now() - begun);
          }
        }
        const [long, short] = [forbidden, absent].map((id) => took[id].sort((a, b) => a - b)[SAMPLES / 2]);
        assert.ok(long < 3 * short, `${name}: ${long} ms for a forbidden task, ${short} ms for a missing one`);
      }
      client.close();
    } finally {
      await embedded?.stop();
    }
  }, { timeout: 180_000 });
}

test('a client leaves the room before the next event, and is in it again only after another join', async () => {
  const _id = new ObjectId();
  const taskId = _id.toHexString();
  await tasks.insertOne({ ...newTask(_id), createdBy: 'alice', orgId: 'acme', isPrivate: false });
  const [alice, bob] = await Promise.all(['alice', 'bob'].map(async (user) => Client.connect(gateway, await member(user))));
  for (const client of [alice, bob]) {
    await client.joinDashboard();
    await client.join(taskId);
    client.received.length = 0;
  }
  await tasks.bulkWrite([
    { $set: { isPrivate: true, title: 'hidden one' } },
    { $set: { title: 'hidden two' } },
    { $push: { events: entry() } },
    { $set: { isPrivate: false, title: 'open again', events: [] } },
    { $set: { title: 'open still' } },
  ].map((update) => ({ updateOne: { filter: { _id }, update } })), { ordered: true });
  await bob.waitForEvent('dashboard:task_list_updated', ({ title }) => title === 'open still');
  assert.deepEqual(bob.received.filter(({ event }) => event.startsWith('task:')).map(({ event }) => event), ['task:deleted']);
  assert.deepEqual(bob.received.filter(({ event, payload }) => event !== 'dashboard:task_count_changed' && payload.taskId === taskId).map(({ event, payload }) => [event, payload.title]), [
    ['task:deleted', undefined],
    ['dashboard:task_removed', undefined],
    ['dashboard:task_list_updated', 'open again'],
    ['dashboard:task_list_updated', 'open still'],
  ]);
  await alice.waitForEvent('task:updated', ({ changed }) => changed.title === 'open still');
  assert.deepEqual(alice.all('task:updated').map(({ changed }) => changed.title), ['hidden one', 'hidden two', 'open again', 'open still']);
  await bob.join(taskId);
  [alice, bob].forEach((client) => {
    client.assertInOrder();
    client.close();
  });
});
