// `taskcast check` reports common deployment mistakes, each with its fix. It reports no problem in a healthy deployment.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { after, before } from 'node:test';
import { createServer as createSecureServer } from 'node:tls';

import { MongoClient } from 'mongodb';

import { Gateway, JWT_SECRET, withGateway } from './support/gateway.js';
import { CA, TLS } from './support/key-server.js';
import { startMongod } from './support/mongo.js';
import { binary } from './support/paths.js';
import { freePort } from './support/ports.js';
import { killGroup, run, start } from './support/processes.js';
import { Redis } from './support/redis.js';
import { test } from './support/scenario.js';
import { member } from './support/tokens.js';
import { until } from './support/until.js';

/** A secret as made by `openssl rand -hex 32`. */
const GOOD_SECRET = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08';

let mongod;
before(async () => (mongod = await startMongod({ extra: ['--journalCommitInterval', '5'] })));
after(() => mongod.stop());

async function check(env, ...args) {
  const { code, stdout } = await run(binary(), ['check', ...args], { cwd: '/', env: { HOST: '127.0.0.1', JWT_SECRET: GOOD_SECRET, ...env } });
  return { code, stdout, bad: stdout.trimEnd().split('\n').filter((line) => !line.startsWith('ok: ')) };
}
const at = (server, name) => server.uri.replace('/?', `/${name}?`);

/** Asserts that `check` reported exactly these problems. */
function assertFound({ bad, stdout }, ...expected) {
  assert.equal(bad.length, expected.length, stdout);
  expected.forEach((pattern, n) => assert.match(bad[n], pattern, stdout));
}

/** A fake Redis of this version, whose clock is `ahead` seconds ahead. */
async function fakeRedis(version, ahead) {
  const bulk = (text) => `$${text.length}\r\n${text}\r\n`;
  const server = createServer((socket) => {
    let text = '';
    socket.on('error', () => {}).setEncoding('utf8').on('data', (more) => {
      // The client may send its first command inline, that is without lengths.
      text += more.replace(/^HELLO 3.*\r\n/, '*1\r\n$5\r\nHELLO\r\n');
      for (let whole; (whole = /^\*(\d+)\r\n/.exec(text)); ) {
        const words = [];
        let rest = text.slice(whole[0].length);
        for (let word; words.length < Number(whole[1]) && (word = /^\$(\d+)\r\n/.exec(rest)); ) {
          words.push(rest.slice(word[0].length, word[0].length + Number(word[1])));
          rest = rest.slice(word[0].length + Number(word[1]) + 2);
        }
        if (words.length < Number(whole[1])) return;
        text = rest;
        const name = words[0].toUpperCase();
        const now = String(Math.floor(Date.now() / 1000) + ahead);
        if (name === 'HELLO') socket.write(`%2\r\n${bulk('server')}${bulk('redis')}${bulk('proto')}:3\r\n`);
        else if (name === 'INFO') socket.write(bulk(`redis_version:${version}\r\nmaxmemory_policy:noeviction\r\n`));
        else if (name === 'TIME') socket.write(`*2\r\n${bulk(now)}${bulk('0')}`);
        else socket.write('+OK\r\n');
      }
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `redis://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

test('a healthy deployment has no problems', async () => {
  const redis = await Redis.start();
  await withGateway({ MONGODB_URI: at(mongod, 'well'), REDIS_URL: redis.url, JWT_SECRET: GOOD_SECRET, METRICS_TOKEN: 'm' }, async (gateway) => {
    const found = await check({ MONGODB_URI: at(mongod, 'well'), REDIS_URL: redis.url }, '--url', gateway.url);
    assertFound(found);
    assert.equal(found.code, 0);
    assert.match(found.stdout, /^ok: polling is sticky: /m);
    assert.equal((await gateway.health()).websocket.connections, 0, 'the check has closed its connections');
  });
  await redis.stop();
});

test('a standalone mongod is an error', async () => {
  const alone = await startMongod({ replicaSet: null });
  const found = await check({ MONGODB_URI: at(alone, 'app') });
  await alone.stop();
  assert.equal(found.code, 1);
  assert.match(found.stdout, /^fail: MongoDB is not a member of a replica set.*--replSet rs0.*rs\.initiate\(\)/m);
});

test('an oplog that is too small is a warning', async () => {
  const small = await startMongod({ oplogMegabytes: 1 });
  const client = await MongoClient.connect(small.uri);
  // These inserts fill much of the oplog within a moment.
  for (let n = 0; n < 8; n += 1) await client.db('app').collection('other').insertOne({ text: 'x'.repeat(100_000) });
  await client.close();
  const found = await check({ MONGODB_URI: at(small, 'app') });
  await small.stop();
  assert.equal(found.code, 0);
  assert.match(found.stdout, /^warn: the oplog reaches back .*replSetResizeOplog/m);
});

test('missing pre- and post-images and missing privileges of the MongoDB user are reported', async () => {
  const client = await MongoClient.connect(mongod.uri);
  const db = client.db('lean');
  await db.createCollection('tasks');
  const role = { role: 'readWrite', db: 'lean' };
  await client.db('admin').command({ createUser: 'writer', pwd: 'of-writer', roles: [role, 'clusterMonitor', { role: 'read', db: 'local' }] });
  const privileges = [{ resource: { db: 'lean', collection: 'tasks' }, actions: ['find', 'listIndexes'] }, { resource: { db: 'lean', collection: '' }, actions: ['listCollections'] }];
  await client.db('admin').command({ createRole: 'looker', privileges, roles: ['clusterMonitor', { role: 'read', db: 'local' }] });
  await client.db('admin').command({ createUser: 'looker', pwd: 'of-looker', roles: ['looker'] });
  const as = (name, env = {}) => check({ MONGODB_URI: at(mongod, 'lean').replace('//', `//${name}:of-${name}@`).concat('&authSource=admin'), ...env });

  assertFound(await check({ MONGODB_URI: at(mongod, 'lean'), MONGODB_IMAGES: 'require' }), /^fail: pre- and post-images are off.*collMod/);
  assertFound(await as('writer'), /^warn: pre- and post-images are off/, /^fail: the user of MONGODB_URI lacks collMod on lean\.tasks; grant it/);
  await db.command({ collMod: 'tasks', changeStreamPreAndPostImages: { enabled: true } });
  assertFound(await as('writer', { FEATURE_TASK_API: 'full', GITHUB_WEBHOOK_SECRET: 'x' }));
  assertFound(await as('looker'), /lacks changeStream on lean\.tasks, createIndex on lean\.tasks;/);
  const found = await as('looker', { FEATURE_TASK_API: 'full', GITHUB_WEBHOOK_SECRET: 'x' });
  assertFound(found, /insert on lean\.tasks, update on lean\.tasks, find on lean\.tasks_github_deliveries, insert on .*_deliveries, createIndex on/);
  assert.equal(found.code, 1);
  await client.close();
});

test('a Redis that is too old, evicts keys, or has a wrong clock is reported', async () => {
  const MONGODB_URI = at(mongod, 'cached');
  const old = await fakeRedis('6.2.14', 0);
  const found = await check({ MONGODB_URI, REDIS_URL: old.url });
  old.close();
  assert.equal(found.code, 1);
  assertFound(found, /^fail: Redis 6\.2\.14 is too old; upgrade it to 7\.0 or newer/);
  const fast = await fakeRedis('7.2.0', 90);
  assertFound(await check({ MONGODB_URI, REDIS_URL: fast.url }), /^warn: the clock of Redis is (89|90)\.\ds ahead of this machine's.*NTP/);
  fast.close();
  const forgetful = await Redis.start({ args: ['--maxmemory-policy', 'allkeys-lru'] });
  assertFound(await check({ MONGODB_URI, REDIS_URL: forgetful.url }), /^warn: .*allkeys-lru.*noeviction/);
  await forgetful.stop();
});

test('invalid origins and weak secrets are reported', async () => {
  const MONGODB_URI = at(mongod, 'access');
  for (const origin of ['https://app.example.com/login', 'app.example.com', 'https://*.example.com']) {
    const found = await check({ MONGODB_URI, WEBSOCKET_CORS_ORIGIN: origin });
    assert.equal(found.code, 1);
    assert.match(found.stdout, /^fail: WEBSOCKET_CORS_ORIGIN: must/m);
  }
  assertFound(await check({ MONGODB_URI, HOST: '0.0.0.0' }), /^warn: .*only pages of http:\/\/localhost:5173 can connect; set WEBSOCKET_CORS_ORIGIN/);
  assertFound(await check({ MONGODB_URI, HOST: '0.0.0.0', WEBSOCKET_CORS_ORIGIN: 'https://app.example.com' }));
  assertFound(await check({ MONGODB_URI, JWT_SECRET }), /^warn: JWT_SECRET holds a word.*openssl rand -hex 32/);
});

/** A proxy that connects each client to the next of these ports. With `secure`, clients speak TLS to it. */
async function roundRobinProxy(ports, { secure = false } = {}) {
  let turn = 0;
  const forward = (socket) => {
    const behind = connect({ host: '127.0.0.1', port: ports[turn++ % ports.length] });
    for (const [from, to] of [[socket, behind], [behind, socket]]) from.on('error', () => to.destroy()).on('close', () => to.destroy()).pipe(to);
  };
  const server = secure ? createSecureServer({ key: readFileSync(TLS.key), cert: readFileSync(TLS.certificate) }, forward) : createServer(forward);
  await new Promise((resolve) => server.on('tlsClientError', () => {}).listen(0, '127.0.0.1', resolve));
  return { url: `${secure ? 'https' : 'http'}://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

test('--url: polling without sticky sessions, public metrics, and a URL that does not answer are reported', async () => {
  const MONGODB_URI = at(mongod, 'reached');
  const nodes = await Promise.all([1, 2].map(() => Gateway.start({ MONGODB_URI, JWT_SECRET: GOOD_SECRET })));
  const proxy = await roundRobinProxy(nodes.map(({ port }) => port));
  assertFound(await check({ MONGODB_URI }, '--url', proxy.url), /^warn: polling is not sticky.*transports: \['websocket'\]/, /^warn: anyone who can reach .* can read \/metrics; set ADMIN_PORT/);
  proxy.close();
  const absent = await check({ MONGODB_URI }, '--url', `http://127.0.0.1:${await freePort()}`);
  assert.equal(absent.code, 1);
  assertFound(absent, /^fail: .* can't be reached: .*; check the URL/);
  await Promise.all(nodes.map((node) => node.stop()));
});

test('--url and tail trust a private CA only if SSL_CERT_FILE contains it', async () => {
  const MONGODB_URI = at(mongod, 'secured');
  await withGateway({ MONGODB_URI, METRICS_TOKEN: 'm' }, async (gateway) => {
    const proxy = await roundRobinProxy([gateway.port], { secure: true });
    const found = await check({ MONGODB_URI, SSL_CERT_FILE: CA }, '--url', proxy.url);
    assertFound(found);
    assert.match(found.stdout, /^ok: WebSockets get through/m);
    assertFound(await check({ MONGODB_URI }, '--url', proxy.url), /^fail: .* can't be reached: .*UnknownIssuer.*SSL_CERT_FILE/);
    const token = await member('alice');
    for (const [env, expected] of [[{ SSL_CERT_FILE: CA }, /dashboard:state/], [{}, /can't be reached: .*UnknownIssuer/]]) {
      const tail = start(binary(), ['tail', '--url', proxy.url, '--token', token], { cwd: '/', env });
      let output = '';
      for (const stream of [tail.stdout, tail.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
      try {
        await until(() => expected.test(output), () => `${expected} in:\n${output}`);
      } finally {
        killGroup(tail);
        await tail.exited;
      }
    }
    proxy.close();
  });
});
