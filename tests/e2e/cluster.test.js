// Two nodes that share a MongoDB and a Redis. The tests ask each node directly: limits and disconnects of a user hold on both.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { after, before } from 'node:test';

import { Client, refused } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { scrape } from './support/metrics.js';
import { freshDatabase } from './support/mongo.js';
import { binary } from './support/paths.js';
import { freePort } from './support/ports.js';
import { run } from './support/processes.js';
import { Redis } from './support/redis.js';
import { test } from './support/scenario.js';
import { member, now, sign } from './support/tokens.js';
import { until } from './support/until.js';

const MAX = 4;

let database;
let redis;
let nodes;

const inCluster = () => Gateway.start({ ...database.env, REDIS_URL: redis.url, MAX_CONNECTIONS_PER_USER: String(MAX) });
/** Waits until every one of these nodes knows of all of them. */
const acquainted = (gateways) => until(async () => {
  const healths = await Promise.all(gateways.map((gateway) => gateway.health()));
  return healths.every(({ status, cluster }) => status === 'ok' && cluster.ok && cluster.nodes.length === gateways.length);
}, 'all nodes know of each other');

before(async () => {
  database = await freshDatabase();
  redis = await Redis.start();
  nodes = await Promise.all([inCluster(), inCluster()]);
  await acquainted(nodes);
});
after(async () => {
  await Promise.all((nodes ?? []).map((gateway) => gateway.stop()));
  await redis?.stop();
  await database?.close();
});

const admin = () => member('root', 'acme', { scope: 'admin' });
async function disconnect(gateway, userId) {
  const answer = await fetch(`${gateway.url}/api/admin/disconnect`, {
    method: 'POST', headers: { authorization: `Bearer ${await admin()}`, 'content-type': 'application/json' }, body: JSON.stringify({ userId }),
  });
  assert.equal(answer.status, 200);
  return answer.json();
}
const gone = (clients) => until(() => clients.every(({ socket }) => !socket.connected), 'they are disconnected');

test('health lists the live nodes, each with its own numbers', async () => {
  const [a, b] = nodes;
  const client = await Client.connect(b, await member('counted'));
  await until(async () => (await a.health()).cluster.nodes.some(({ connections }) => connections === 1), 'a knows of the client of b');
  const [seenByA, seenByB] = await Promise.all(nodes.map(async (node) => (await node.health()).cluster.nodes));
  assert.deepEqual(seenByA.map(({ id }) => id), seenByB.map(({ id }) => id));
  for (const node of seenByA) {
    assert.deepEqual(Object.keys(node), ['id', 'version', 'connections', 'lagMs']);
    assert.match(node.version, /^\d+\.\d+\.\d+/);
  }
  client.close();
});

test('a user\'s oldest connection is closed, wherever it is', async () => {
  const token = await member('crowd');
  const clients = [];
  for (let n = 0; n < MAX; n += 1) clients.push(await Client.connect(nodes[n % 2], token));
  const newest = await Client.connect(nodes[1], token);
  await gone([clients[0]]);
  assert.deepEqual(clients[0].disconnects, ['transport close']);
  const another = await Client.connect(nodes[1], token);
  await gone([clients[1]]);
  for (const client of [...clients.slice(2), newest, another]) assert.ok(client.socket.connected);
});

test('connections of a dead node are no longer counted', async () => {
  const token = await member('survivor');
  const third = await inCluster();
  const old = await Client.connect(nodes[0], token);
  const dead = [await Client.connect(third, token), await Client.connect(third, token), await Client.connect(third, token)];
  await third.kill();
  await gone(dead);
  const again = [];
  for (let n = 0; n < MAX - 1; n += 1) again.push(await Client.connect(nodes[1], token));
  assert.equal((await again[0].ask('dashboard:join')).ok, true);
  // One more connection closes the oldest, which shows that the nodes have counted all before it.
  const oneMore = await Client.connect(nodes[0], token);
  await gone([old]);
  for (const client of [...again, oneMore]) assert.ok(client.socket.connected);
  await third.stop();
});

test('a disconnected user is disconnected from every node, and every node refuses its old tokens', async () => {
  const token = await member('thief');
  const clients = [await Client.connect(nodes[0], token), await Client.connect(nodes[1], token), await Client.connect(nodes[1], token, { transports: ['polling'] })];
  const bystander = await Client.connect(nodes[1], await member('bystander'));
  const answer = await disconnect(nodes[0], 'thief');
  assert.equal(answer.everywhere, true);
  await gone(clients);
  const [polling, ...told] = clients.toReversed().map((client) => client.all('error').map(({ code }) => code));
  assert.deepEqual(told, [['unauthorized'], ['unauthorized']]);
  // A polling client receives the error only when it polls in time.
  if (polling.length > 0) assert.deepEqual(polling, ['unauthorized']);
  for (const node of nodes) assert.equal(await refused(node, token), 'unauthorized');
  const fresh = await Client.connect(nodes[1], await member('thief', 'acme', { iat: now() + 2 }));
  assert.ok(fresh.socket.connected && bystander.socket.connected);
});

test('a node that starts later knows who was disconnected', async () => {
  const token = await member('early');
  await disconnect(nodes[0], 'early');
  const third = await inCluster();
  await acquainted([...nodes, third]);
  await until(async () => (await refused(third, token)) === 'unauthorized', 'refused');
  await third.stop();
  await acquainted(nodes);
});

test('clients do not notice that Redis is down; when it is back, the nodes learn what happened meanwhile', async () => {
  const [a, b] = nodes;
  const token = await member('meanwhile');
  const crowded = await member('crowded');
  const [onA, onB] = [await Client.connect(a, token), await Client.connect(b, token)];
  const crowd = [];
  for (let n = 0; n < MAX - 1; n += 1) crowd.push(await Client.connect(a, crowded));
  const before = await scrape(a.url);
  await redis.stop();
  await until(async () => (await Promise.all(nodes.map((node) => node.health()))).every(({ status, cluster }) => status === 'degraded' && !cluster.ok && cluster.nodes.length === 1), 'both are degraded');
  assert.equal((await fetch(`${a.url}/api/health`)).status, 200);
  const away = await scrape(a.url);
  assert.deepEqual([before, away].map((page) => ['taskcast_redis_up', 'taskcast_cluster_nodes'].map((name) => page.get(name))), [[1, 2], [0, 1]]);
  assert.equal(away.since(before, 'taskcast_redis_lost_total'), 1);
  const late = await Client.connect(b, await member('late'));
  await late.joinDashboard();
  for (let n = 0; n < 3; n += 1) crowd.push(await Client.connect(b, crowded));
  const answer = await disconnect(a, 'meanwhile');
  assert.equal(answer.everywhere, false);
  await gone([onA]);
  assert.ok(onB.socket.connected, 'its node does not know of the disconnect yet');
  // Redis starts without data.
  await redis.launch();
  await acquainted(nodes);
  const back = await scrape(a.url);
  assert.deepEqual(['taskcast_redis_up', 'taskcast_cluster_nodes'].map((name) => back.get(name)), [1, 2]);
  await gone([onB, ...crowd.slice(0, 2)]);
  assert.equal(await refused(b, token), 'unauthorized');
  assert.deepEqual(crowd.map(({ socket }) => socket.connected), [false, false, true, true, true, true]);
  assert.ok(late.socket.connected && late.disconnects.length === 0);
});

test('invalid messages in Redis channels are ignored, and every key in Redis expires', async () => {
  const [a] = nodes;
  const client = await Client.connect(a, await member('target'));
  const { keys, sent } = await redis.ask(async (connection) => {
    const keys = await connection.keys('*');
    const channels = (await connection.pubSubChannels()).filter((name) => name.startsWith('taskcast:'));
    assert.equal(channels.length, 3, 'one channel for all nodes, one for each node');
    let sent = 0;
    for (const channel of channels) {
      for (const text of ['', '{', '[]', '{"close":"1"}', '{"close":999999}', '{"disconnect":{"user":"target","at":99999999999999}}', 'x'.repeat(100_000)]) {
        sent += await connection.publish(channel, text);
      }
    }
    // Redis answers -1 for a key without expiry, and -2 for a key that has been deleted meanwhile.
    for (const key of keys) assert.notEqual(await connection.pTTL(key), -1, `${key} never expires`);
    return { keys, sent };
  });
  assert.ok(sent > 0 && keys.length > 0 && keys.every((key) => key.startsWith(`taskcast:${database.name}.tasks:`)), keys.join());
  // The node receives this disconnect after all of those messages, on the same connection.
  const other = await Client.connect(a, await member('fence'));
  await disconnect(nodes[1], 'fence');
  await gone([other]);
  assert.ok(client.socket.connected);
  await acquainted(nodes);
});

/** A fake Redis that answers the first commands of a connection. */
async function redisOfVersion(version) {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (data) => {
      for (const [, command] of data.toString('latin1').matchAll(/(?:\*\d+\r\n\$\d+\r\n|^)(HELLO|INFO|CLIENT)/g)) {
        const info = `# Server\r\nredis_version:${version}\r\n`;
        if (command === 'HELLO') socket.write('%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n');
        else if (command === 'INFO') socket.write(`=${info.length + 4}\r\ntxt:${info}\r\n`);
        else socket.write('+OK\r\n');
      }
    });
  });
  const port = await freePort();
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return { url: `redis://127.0.0.1:${port}`, close: () => server.close() };
}

test('a Redis that is too old prevents the start; an unreachable Redis does not', async () => {
  const old = await redisOfVersion('6.2.14');
  const gateway = new Gateway(await freePort(), { ...database.env, REDIS_URL: old.url });
  gateway.spawn();
  await until(() => gateway.exit, () => `it ends\n${gateway.lastLines()}`);
  assert.equal(gateway.exit.code, 1);
  assert.match(gateway.output, /REDIS_URL: Redis 6\.2\.14 is too old: 7\.0 or newer is needed/);
  old.close();

  const absent = await freePort();
  const alone = new Gateway(await freePort(), { ...database.env, REDIS_URL: `redis://:hunter2@127.0.0.1:${absent}` });
  alone.spawn();
  await until(async () => (await alone.health()).status === 'degraded', 'degraded');
  const client = await Client.connect(alone, await member('first'));
  await client.joinDashboard();
  const there = new Redis(absent, { args: ['--requirepass', 'hunter2'], url: `redis://:hunter2@127.0.0.1:${absent}` });
  await there.launch();
  await until(async () => (await alone.health()).status === 'ok', 'health is ok again');
  assert.deepEqual(client.disconnects, []);
  await there.stop();
  await alone.stop();
  assert.ok(!alone.output.includes('hunter2'));
});

test('`taskcast check` reports the version of Redis, and an unreachable Redis', async () => {
  const check = (env) => run(binary(), ['check'], { cwd: nodes[0].cwd, env: { ...nodes[0].env, ...env } });
  const good = await check({});
  assert.equal(good.code, 0, good.stdout);
  assert.match(good.stdout, /^ok: Redis 7\.\d+\.\d+ answers$/m);
  assert.match(good.stdout, /maxmemory-policy noeviction/);
  const bad = await check({ REDIS_URL: `redis://:hunter2@127.0.0.1:${await freePort()}` });
  assert.equal(bad.code, 1);
  assert.match(bad.stdout, /^fail: Redis: /m);
  assert.ok(!bad.stdout.includes('hunter2'));
});

test('tokens without iat are refused after a disconnect', async () => {
  const token = await sign({ sub: 'timeless', orgId: 'acme', iat: undefined });
  const client = await Client.connect(nodes[1], token);
  await disconnect(nodes[0], 'timeless');
  await gone([client]);
  assert.equal(await refused(nodes[1], token), 'unauthorized');
});
