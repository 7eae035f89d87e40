// A bare resync in a process that is older than two minutes. Its age is what is waited for, so this file takes that long.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { freshDatabase } from './support/mongo.js';
import { Redis } from './support/redis.js';
import { member } from './support/tokens.js';
import { test } from './support/scenario.js';
import { until } from './support/until.js';

const JUST_STARTED = 120_000;

let gateway;
let database;
let redis;
let nodes;
let startedAt;

before(async () => {
  database = await freshDatabase();
  redis = await Redis.start();
  gateway = await Gateway.start();
  nodes = await Promise.all([0, 1].map(() => Gateway.start({ ...database.env, REDIS_URL: redis.url })));
  startedAt = Date.now();
});
after(async () => {
  for (const server of [gateway, ...(nodes ?? []), redis]) await server?.stop();
  await database?.close();
});

const old = () => until(() => Date.now() > startedAt + JUST_STARTED + 1000, 'the processes are two minutes old', JUST_STARTED + 10_000);

test('bare, nothing joined: the dashboard only for who lost it without leaving', async () => {
  await old();

  const never = await Client.connect(gateway, await member('never'));
  assert.equal(await bareResyncGivesDashboard(never), false, 'never had it');
  never.close();

  const lost = await Client.connect(gateway, await member('lost'));
  await lost.joinDashboard();
  await reconnect(lost);
  assert.equal(await bareResyncGivesDashboard(lost), true, 'lost it without leaving');
  lost.close();

  const left = await Client.connect(gateway, await member('left'));
  await left.joinDashboard();
  await left.ask('dashboard:leave');
  await reconnect(left);
  assert.equal(await bareResyncGivesDashboard(left), false, 'left it');
  left.close();
}, { timeout: 180_000 });

test('the same on another node, which asks Redis', async () => {
  await old();
  const [a, b] = nodes;
  const elsewhere = async (name) => Client.connect(b, await member(name));
  const gone = (count) => until(async () => (await a.health()).websocket.connections === count, 'the other node noticed');

  const never = await Client.connect(a, await member('never'));
  const [held, left, lost] = await Promise.all(['held', 'left', 'lost'].map(async (name) => Client.connect(a, await member(name))));
  for (const client of [held, left, lost]) await client.joinDashboard();
  await left.ask('dashboard:leave');
  left.drop();
  lost.drop();
  await gone(2);
  // What the node has told Redis is not to be seen from here; a client that asks later than that is told.
  await until(async () => bareResyncGivesDashboard(await elsewhere('lost')), 'lost it without leaving');
  for (const name of ['never', 'held', 'left']) assert.equal(await bareResyncGivesDashboard(await elsewhere(name)), false, name);

  await redis.signal('SIGSTOP');
  assert.equal(await bareResyncGivesDashboard(await elsewhere('never')), true, 'nobody can say');
  await redis.signal('SIGCONT');
  await until(async () => (await Promise.all(nodes.map((node) => node.health()))).every(({ cluster }) => cluster.nodes.length === 2), 'they know of each other');
  assert.equal(await bareResyncGivesDashboard(await elsewhere('never')), false, 'Redis answers again');

  // It has no time to tell anybody.
  await a.kill();
  assert.equal(await bareResyncGivesDashboard(await elsewhere('held')), true, 'its node died');
  assert.equal(await bareResyncGivesDashboard(await elsewhere('left')), false, 'it had left');
  never.close();
}, { timeout: 180_000 });

async function reconnect(client) {
  client.drop();
  await until(() => !client.socket.connected, 'dropped');
  await until(async () => (await gateway.health()).websocket.connections === 0, 'the gateway noticed');
  client.socket.connect();
  await client.connected();
}

/** The ack of a later request comes after everything that the resync sends. */
async function bareResyncGivesDashboard(client) {
  client.received.length = 0;
  assert.equal((await client.ask('resync_requested')).ok, true);
  await client.ask('task:leave', { taskId: '00000000000000000000dead' });
  return client.all('dashboard:state').length === 1;
}
