// Three nodes send the same bytes for the same changes, and a client can use its `since` on another node.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { io } from 'socket.io-client';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { freshDatabase } from './support/mongo.js';
import { Redis } from './support/redis.js';
import { test } from './support/scenario.js';
import { member } from './support/tokens.js';
import { until } from './support/until.js';

const TASKS = ['one', 'two', 'three'];
const ROOMS = [...TASKS, 'dashboard'];

let database;
let redis;
let nodes;

before(async () => {
  database = await freshDatabase();
  redis = await Redis.start();
  nodes = await Promise.all([0, 1, 2].map(() => Gateway.start({ ...database.env, REDIS_URL: redis.url })));
});
after(async () => {
  for (const server of [...(nodes ?? []), redis]) await server?.stop();
  await database?.close();
});

/** A client that keeps the packets of changes, by room and in order. It ignores counts, which the gateway sends on a timer. */
class Listener {
  heard = [];
  states = 0;
  recovered = [];
  #last = new Map();

  constructor(token) {
    this.token = token;
  }

  /** Connects to a node and resyncs each room from the last eventId. */
  async goTo(node) {
    const socket = io(node.url, { auth: { token: this.token }, forceNew: true, transports: ['websocket'], reconnection: false });
    this.socket = socket;
    socket.io.engine.on('packet', ({ data }) => typeof data === 'string' && data.startsWith('2[') && this.#take(data));
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('connect_error', reject));
    for (const room of ROOMS) {
      const names = room === 'dashboard' ? { dashboard: true } : { taskIds: [room] };
      const since = this.#last.has(room) ? { since: this.#last.get(room) } : {};
      const answer = await socket.timeout(20_000).emitWithAck('resync_requested', { ...names, ...since });
      assert.equal(answer.ok, true, JSON.stringify(answer));
      if (since.since) this.recovered.push(answer.recovered);
    }
    return this;
  }

  #take(text) {
    const [event, payload, more] = JSON.parse(text.slice(1));
    if (event === 'dashboard:task_count_changed') return;
    const room = event.startsWith('dashboard:') || event === 'task:created' ? 'dashboard' : payload.taskId;
    this.#last.set(room, (event === 'dashboard:state' ? more : payload).eventId);
    // A state that answers a request has no `occurredAt`; a state for a change has one.
    if (event.endsWith(':state') && !payload.occurredAt) this.states += 1;
    else this.heard.push({ room, text });
  }

  in(room) {
    return this.heard.filter((one) => one.room === room).map(({ text }) => text);
  }

  async leave() {
    this.socket.disconnect();
  }
}

/** Changes of every kind, some of them in transactions. */
async function write(rounds, from) {
  const { tasks, client } = database;
  const at = () => new Date();
  for (let n = from; n < from + rounds; n += 1) {
    const id = TASKS[n % TASKS.length];
    const entry = (more) => ({ eventType: 'step', payload: { n, more }, createdAt: at() });
    await tasks.updateOne({ _id: id }, { $set: { title: `#${n}`, status: ['coding', 'pr_open', 'odd', 'dispatched'][n % 4], updatedAt: at() }, $push: { events: { $each: [entry(1), entry(2)] } } });
    await client.withSession((session) => session.withTransaction(async () => {
      for (const task of TASKS) await tasks.updateOne({ _id: task }, { $set: { prNumber: n, prTitle: `${task} ${n}`, updatedAt: at() }, $push: { events: entry('together') } }, { session });
      await tasks.updateOne({ _id: id }, { $set: { clarificationAnswers: [`${n}`] } }, { session });
    }));
    if (n % 5 === 0) await tasks.updateOne({ _id: id }, { $set: { 'events.0.payload.n': -n } });
    if (n % 7 === 0) {
      await tasks.insertOne({ _id: `passing-${n}`, title: 'passing', status: 'received', createdBy: 'boss', orgId: 'acme', createdAt: at(), updatedAt: at(), events: [] });
      await tasks.deleteOne({ _id: `passing-${n}` });
    }
  }
}

test('every node sends the same bytes, through transactions and restarts, and when a client moves between nodes', async () => {
  await database.tasks.insertMany(TASKS.map((_id) => ({ _id, title: '#', status: 'received', createdBy: 'boss', orgId: 'acme', createdAt: new Date(), updatedAt: new Date(), events: [] })));
  const token = await member('listener');
  const [still, other, restarted, wanderer] = [0, 1, 2, 3].map(() => new Listener(token));
  await still.goTo(nodes[0]);
  await other.goTo(nodes[1]);
  await restarted.goTo(nodes[2]);
  await wanderer.goTo(nodes[0]);
  let written = 0;
  const round = async () => {
    await write(10, written);
    written += 10;
  };
  await round();
  for (let hop = 1; hop <= 6; hop += 1) {
    await wanderer.leave();
    if (hop === 2 || hop === 5) {
      await restarted.leave();
      await nodes[2].kill();
      await round();
      await nodes[2].launch();
      await restarted.goTo(nodes[2]);
    } else if (hop === 4) {
      // The client moves to a node that has not read all changes that the client has already received.
      process.kill(nodes[1].child.pid, 'SIGSTOP');
      try {
        await wanderer.goTo(nodes[0]);
        await round();
        await until(() => wanderer.heard.some(({ text }) => text.includes(`"prNumber":${written - 1}`)), 'it has the last of this round');
        await wanderer.leave();
      } finally {
        process.kill(nodes[1].child.pid, 'SIGCONT');
      }
    } else await round();
    await wanderer.goTo(nodes[hop % 3]);
  }
  await database.tasks.updateMany({}, { $set: { errorMessage: 'the end', updatedAt: new Date() } });
  const all = [still, other, restarted, wanderer];
  const ended = (listener, room) => listener.in(room).filter((text) => text.includes('the end')).length === (room === 'dashboard' ? TASKS.length : 1);
  await until(() => all.every((listener) => ROOMS.every((room) => ended(listener, room))), 'every client has the last change');

  assert.ok(still.heard.length > 800, `${still.heard.length} packets`);
  assert.deepEqual(other.heard, still.heard, 'two nodes that were not restarted');
  assert.deepEqual([restarted.recovered, wanderer.recovered].map((answers) => answers.filter((answer) => !answer)), [[], []]);
  for (const listener of [restarted, wanderer]) {
    assert.equal(listener.states, ROOMS.length, 'no state except the first ones');
    for (const room of ROOMS) assert.deepEqual(listener.in(room), still.in(room), room);
  }
  for (const listener of all) await listener.leave();
});

test('users who may no longer see a task leave its room on every node and receive no later event', async () => {
  const _id = 'secret';
  await database.tasks.insertOne({ _id, title: 'open', status: 'coding', createdBy: 'owner', orgId: 'acme', isPrivate: false, createdAt: new Date(), updatedAt: new Date(), events: [] });
  const clients = [];
  for (const [n, node] of [...nodes, ...nodes].entries()) {
    const client = await Client.connect(node, await member(`member-${n}`), { transports: [n < 3 ? 'websocket' : 'polling'] });
    await client.join(_id);
    await client.joinDashboard();
    clients.push(client);
  }
  const owner = await Client.connect(nodes[1], await member('owner'));
  await owner.join(_id);
  for (let n = 0; n < 20; n += 1) await database.tasks.updateOne({ _id }, { $set: { title: `open ${n}` } });
  await database.tasks.updateOne({ _id }, { $set: { isPrivate: true, title: 'hidden' } });
  for (let n = 0; n < 20; n += 1) await database.tasks.updateOne({ _id }, { $set: { title: `hidden ${n}` } });
  await owner.waitForEvent('task:updated', ({ changed }) => changed.title === 'hidden 19');
  // After all of that, a change that these clients do see.
  await database.tasks.updateOne({ _id: 'one' }, { $set: { title: 'visible' } });
  for (const client of clients) {
    await client.waitForEvent('dashboard:task_list_updated', ({ title }) => title === 'visible');
    assert.deepEqual(client.all('task:deleted').map(({ taskId }) => taskId), [_id]);
    assert.deepEqual(client.all('dashboard:task_removed').map(({ taskId }) => taskId), [_id]);
    assert.equal(client.all('task:updated').length, 20, 'all events before the task became private');
    assert.ok(!JSON.stringify(client.received).includes('hidden'));
  }
});
