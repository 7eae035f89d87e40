// Three nodes behind nginx, and behind HAProxy, with the configurations of deploy/.
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before } from 'node:test';

import { Balancer } from './support/balancer.js';
import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { freshDatabase } from './support/mongo.js';
import { Redis } from './support/redis.js';
import { test } from './support/scenario.js';
import { member, pipeline } from './support/tokens.js';
import { until } from './support/until.js';

const TRANSPORTS = [['websocket'], ['polling'], ['polling', 'websocket']];

let database;
let redis;
let nodes;
const balancers = {};

before(async () => {
  database = await freshDatabase();
  redis = await Redis.start();
  const env = { ...database.env, REDIS_URL: redis.url, FEATURE_TASK_API: 'full', TRUSTED_PROXIES: '127.0.0.1', SHUTDOWN_GRACE: '30s' };
  nodes = await Promise.all([0, 1, 2].map(() => Gateway.start(env)));
  const ports = nodes.map(({ port }) => port);
  for (const name of ['nginx', 'haproxy']) balancers[name] = await Balancer[name](ports);
});
after(async () => {
  for (const server of [...Object.values(balancers), ...(nodes ?? []), redis, database]) await (server?.stop?.() ?? server?.close?.());
});

const connections = () => Promise.all(nodes.map(async (node) => (await node.health()).websocket.connections));

async function create(url, title) {
  const answer = await fetch(`${url}/api/tasks`, {
    method: 'POST', headers: { authorization: `Bearer ${await member('alice')}`, 'content-type': 'application/json' }, body: JSON.stringify({ title }),
  });
  assert.equal(answer.status, 202);
  return (await answer.json()).taskId;
}

async function rename(url, id, title) {
  const answer = await fetch(`${url}/api/tasks/${id}`, {
    method: 'PATCH', headers: { authorization: `Bearer ${await pipeline()}`, 'content-type': 'application/json' }, body: JSON.stringify({ title }),
  });
  assert.equal(answer.status, 200);
}

/** Waits until every node gets new clients. A health check of the balancer may have failed on a busy node. */
async function allServe(url) {
  await until(async () => {
    const clients = await Promise.all(Array.from({ length: 6 }, async (_, n) => Client.connect(url, await member(`new-${n}`))));
    const spread = await connections();
    clients.forEach((client) => client.close());
    return spread.every((count) => count > 0);
  }, 'every node gets clients');
  await until(async () => (await connections()).every((count) => count === 0), 'no client is left');
}

/** Status of a handshake over HTTP with these headers. */
const handshake = (url, headers) => new Promise((resolve, reject) => {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port }).once('error', reject);
  const lines = Object.entries({ Host: 'app.example.com', Connection: 'close', ...headers }).map(([name, value]) => `${name}: ${value}\r\n`).join('');
  socket.write(`GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n${lines}\r\n`);
  let answer = '';
  socket.setEncoding('utf8').on('data', (text) => (answer += text)).on('end', () => resolve(Number(answer.split(' ')[1])));
});

for (const name of ['nginx', 'haproxy']) {
  test(`${name}: clients of every transport, on every node, get each event once`, async () => {
    const { url } = balancers[name];
    await allServe(url);
    const taskId = await create(url, 'balanced');
    const clients = await Promise.all(Array.from({ length: 12 }, async (_, n) => Client.connect(url, await member(`user-${n}`), { transports: TRANSPORTS[n % 3] })));
    for (const client of clients) await client.join(taskId);
    const upgraded = clients.filter((_, n) => n % 3 === 2);
    await until(() => upgraded.every(({ socket }) => socket.io.engine.transport.name === 'websocket'), 'upgraded');
    await rename(url, taskId, 'renamed');
    for (const client of clients) await client.waitForEvent('task:updated', ({ changed }) => changed.title === 'renamed');
    const ids = clients.map((client) => client.all('task:updated').map(({ eventId }) => eventId));
    assert.deepEqual(ids, clients.map(() => ids[0]));
    assert.deepEqual(clients.flatMap(({ disconnects }) => disconnects), []);
    clients.forEach((client) => client.close());
    await until(async () => (await connections()).every((count) => count === 0), 'no client is left');
  });

  test(`${name}: nodes trust forwarding headers only from the balancer`, async () => {
    const { url } = balancers[name];
    assert.equal(await handshake(url, { Origin: 'http://app.example.com' }), 200, 'the page of the balancer\'s own host');
    assert.equal(await handshake(url, { Origin: 'http://evil.example' }), 403);
    assert.equal(await handshake(url, { Origin: 'http://evil.example', 'X-Forwarded-Host': 'evil.example' }), 403, 'the client forges X-Forwarded-Host');
    assert.equal(await handshake(url, { Origin: 'https://app.example.com', 'X-Forwarded-Proto': 'https' }), 403);
    for (const path of ['/api/admin/disconnect', '/metrics']) assert.equal((await fetch(`${url}${path}`)).status, 404);
  });

  test(`${name}: a draining node gets no new clients and serves those it has`, async () => {
    const { url } = balancers[name];
    const taskId = await create(url, 'drained');
    const draining = nodes[0];
    const there = await Promise.all(Array.from({ length: 9 }, async (_, n) => {
      const client = await Client.connect(url, await member(`there-${n}`), { reconnection: true, reconnectionDelay: 100 });
      await client.join(taskId);
      return client;
    }));
    const [before] = await connections();
    assert.ok(before > 0);
    // A request whose body does not arrive keeps the node draining.
    const held = connect({ host: '127.0.0.1', port: draining.port });
    held.write(`POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${await member('slow')}\r\nContent-Type: application/json\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n`);
    await new Promise((resolve) => held.once('data', resolve));
    draining.child.kill('SIGTERM');
    await until(async () => (await draining.health()).status === 'draining', 'it drains');
    const fresh = await Promise.all(Array.from({ length: 12 }, async (_, n) => Client.connect(url, await member(`fresh-${n}`), { transports: TRANSPORTS[n % 3] })));
    await rename(url, taskId, 'while draining');
    for (const client of there) await client.waitForEvent('task:updated', ({ changed }) => changed.title === 'while draining');
    assert.deepEqual((await connections())[0], before, 'the draining node has neither gained nor lost a client');
    assert.deepEqual(there.flatMap(({ disconnects }) => disconnects), []);
    held.destroy();
    await draining.child.exited;
    await until(() => there.every(({ socket }) => socket.connected) && there.filter(({ disconnects }) => disconnects.length > 0).length === before, 'its clients are connected to other nodes');
    assert.deepEqual(fresh.flatMap(({ disconnects }) => disconnects), []);
    [...there, ...fresh].forEach((client) => client.close());
    await draining.launch();
    await allServe(url);
  });
}
