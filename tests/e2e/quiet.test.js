// A bare resync in a process that is older than two minutes. This file takes that long, because it waits for the process to age.
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

test('a bare resync with nothing joined gives the dashboard only to a user who lost it without leaving', async () => {
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

test('a bare resync on another node does the same, because the node asks Redis', async () => {
  await old();
  const [a, b] = nodes;
  const elsewhere = async (name) => Client.connect(b, await member(name));
  const gone = (count) => until(async () => (await a.health()).websocket.connections === count, 'the other node has noticed');

  const never = await Client.connect(a, await member('never'));
  const [held, left, lost] = await Promise.all(['held', 'left', 'lost'].map(async (name) => Client.connect(a, await member(name))));
  for (const client of [held, left, lost]) await client.joinDashboard();
  await left.ask('dashboard:leave');
  left.drop();
  lost.drop();
  await gone(2);
  // The test cannot see when the node has written to Redis. A client that asks after that gets the dashboard.
  await until(async () => bareResyncGivesDashboard(await elsewhere('lost')), 'lost it without leaving');
  for (const name of ['never', 'held', 'left']) assert.equal(await bareResyncGivesDashboard(await elsewhere(name)), false, name);

  await redis.signal('SIGSTOP');
  assert.equal(await bareResyncGivesDashboard(await elsewhere('never')), true, 'Redis does not answer');
  await redis.signal('SIGCONT');
  await until(async () => (await Promise.all(nodes.map((node) => node.health()))).every(({ cluster }) => cluster.nodes.length === 2), 'the nodes know of each other');
  assert.equal(await bareResyncGivesDashboard(await elsewhere('never')), false, 'Redis answers again');

  // The killed node has no time to write to Redis.
  await a.kill();
  assert.equal(await bareResyncGivesDashboard(await elsewhere('held')), true, 'its node died');
  assert.equal(await bareResyncGivesDashboard(await elsewhere('left')), false, 'it had left before');
  never.close();
}, { timeout: 180_000 });

async function reconnect(client) {
  client.drop();
  await until(() => !client.socket.connected, 'dropped');
  await until(async () => (await gateway.health()).websocket.connections === 0, 'the gateway noticed');
  client.socket.connect();
  await client.connected();
}

/** Returns whether a bare resync sends the dashboard. A later request is acknowledged after everything that the resync sends. */
async function bareResyncGivesDashboard(client) {
  client.received.length = 0;
  assert.equal((await client.ask('resync_requested')).ok, true);
  await client.ask('task:leave', { taskId: '00000000000000000000dead' });
  return client.all('dashboard:state').length === 1;
}
