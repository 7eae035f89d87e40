// A rolling deploy: a node beside an older one, which reports fewer fields, and a newer one, which sends unknown fields and messages.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { Client, refused } from './support/client.js';
import { ForeignNode } from './support/foreign-node.js';
import { Gateway } from './support/gateway.js';
import { scrape } from './support/metrics.js';
import { freshDatabase } from './support/mongo.js';
import { Redis } from './support/redis.js';
import { test } from './support/scenario.js';
import { member } from './support/tokens.js';
import { until } from './support/until.js';

const MAX = 3;

let database;
let redis;
let node;
let older;
let newer;

before(async () => {
  database = await freshDatabase();
  redis = await Redis.start();
  node = await Gateway.start({ ...database.env, REDIS_URL: redis.url, MAX_CONNECTIONS_PER_USER: String(MAX) });
  const prefix = `taskcast:${database.name}.tasks:`;
  older = await ForeignNode.join(redis, prefix, { id: 'older', version: '0.0.1', connections: 2 });
  newer = await ForeignNode.join(redis, prefix, { id: 'newer', version: '99.0.0', connections: 1, lagMs: 7, region: 'moon', load: { cpu: 0.5 } });
});
after(async () => {
  older?.leave();
  newer?.leave();
  await node?.stop();
  await redis?.stop();
  await database?.close();
});

const gone = (client) => until(() => !client.socket.connected, 'it is disconnected');

test('health lists nodes of all versions, and fields that a node does not report are zero', async () => {
  const nodes = await until(async () => {
    const { cluster } = await node.health();
    return cluster.nodes.length === 3 && cluster.nodes;
  }, 'all three');
  const told = (id) => nodes.find((one) => one.id === id);
  assert.deepEqual(told('older'), { id: 'older', version: '0.0.1', connections: 2, lagMs: 0 });
  assert.deepEqual(told('newer'), { id: 'newer', version: '99.0.0', connections: 1, lagMs: 7 });
});

test('a disconnect reaches nodes of all versions, also with unknown fields', async () => {
  const token = await member('thief');
  const client = await Client.connect(node, token);
  await newer.disconnect('thief', { reason: 'spam', until: null });
  await gone(client);
  assert.equal(await refused(node, token), 'unauthorized');

  const answer = await fetch(`${node.url}/api/admin/disconnect`, {
    method: 'POST', headers: { authorization: `Bearer ${await member('root', 'acme', { scope: 'admin' })}`, 'content-type': 'application/json' }, body: '{"userId": "robber"}',
  });
  assert.equal((await answer.json()).everywhere, true);
  for (const foreign of [older, newer]) await until(() => foreign.words.some((word) => JSON.parse(word).disconnect?.user === 'robber'), `${foreign.report.id} hears of it`);
});

test('the connection limit of a user counts connections of all versions', async () => {
  const token = await member('crowd');
  await older.opened('crowd', [41], { max: MAX, age: 60_000 });
  const clients = [];
  for (let n = 0; n < MAX; n += 1) clients.push(await Client.connect(node, token));
  await until(() => older.words.includes('{"close":41}'), 'the older node is asked to close the oldest connection');
  // The newer version numbers its sessions differently.
  await newer.opened('crowd', ['moon/42'], { max: MAX, age: 0 });
  await gone(clients[0]);
  for (const client of clients.slice(1)) assert.ok(client.socket.connected);
});

test('unknown messages of other nodes are ignored, and later messages are processed', async () => {
  const bystander = await Client.connect(node, await member('bystander'));
  const last = await Client.connect(node, await member('last'));
  for (const word of ['"drain"', '{"move":{"session":1,"to":"newer"}}', '{"close":{"session":1}}', '{"disconnect":{"users":["bystander"],"at":1}}', '\u0001packed']) await newer.say(word);
  await newer.disconnect('last');
  await gone(last);
  assert.ok(bystander.socket.connected);
  const page = await scrape(node.url);
  assert.equal(page.get('taskcast_redis_lost_total'), 0, node.lastLines());
  assert.equal(page.get('taskcast_cluster_nodes'), 3);
});
