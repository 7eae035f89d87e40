// A Redis with TLS, a user and a password, as docs/cluster.md describes it, and the errors when Redis refuses the gateway.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { join } from 'node:path';

import { certificates } from './support/certificates.js';
import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { scrape } from './support/metrics.js';
import { freshDatabase } from './support/mongo.js';
import { REPO, binary } from './support/paths.js';
import { freePort } from './support/ports.js';
import { run } from './support/processes.js';
import { Redis } from './support/redis.js';
import { test } from './support/scenario.js';
import { member } from './support/tokens.js';
import { until } from './support/until.js';

/** The ACL rules that the page names; they span several lines. */
const RIGHTS = readFileSync(join(REPO, 'docs/cluster.md'), 'utf8').match(/`(~taskcast:\*[^`]*)`/)[1].split(/\s+/);

let database;
let files;
let redis;
const gateways = [];

before(async () => {
  database = await freshDatabase();
  files = await certificates();
  const port = await freePort();
  redis = new Redis(port, {
    args: ['--bind', '127.0.0.1', '-::1', '--port', '0', '--tls-port', String(port), '--tls-cert-file', files.certificate, '--tls-key-file', files.key, '--tls-ca-cert-file', files.authority,
      '--tls-auth-clients', 'no', '--requirepass', 'root-of-redis'],
    url: `rediss://:root-of-redis@127.0.0.1:${port}`,
    socket: { ca: readFileSync(files.authority) },
  });
  await redis.launch();
  await setUser('gateway', '>hunter2', ...RIGHTS);
});
after(async () => {
  await Promise.all(gateways.map((gateway) => gateway.stop()));
  await redis?.stop();
  await database?.close();
});

const setUser = (name, ...rules) => redis.ask((client) => client.sendCommand(['ACL', 'SETUSER', name, 'reset', 'on', ...rules]));
const env = (user, more = {}) => ({
  ...database.env, REDIS_URL: `rediss://${user}@127.0.0.1:${redis.port}`, SSL_CERT_FILE: files.authority, ...more,
});
const check = (env) => run(binary(), ['check'], { env: { PATH: process.env.PATH, JWT_SECRET: 'x'.repeat(32), ...env } });

async function begin(env) {
  const gateway = new Gateway(await freePort(), env);
  gateways.push(gateway);
  gateway.spawn();
  return gateway;
}

/** Starts a gateway that cannot use Redis, and connects a client to it. */
async function withoutRedis(env) {
  const gateway = await begin(env);
  await until(async () => (await gateway.health()).status === 'degraded', () => `degraded\n${gateway.lastLines()}`);
  // Each client has its own user. When another test disconnects a user, that user's tokens of the same second are refused.
  const client = await Client.connect(gateway, await member(`guest-${gateways.length}`));
  await client.joinDashboard();
  return { gateway, client };
}

async function refusedFor(settings, why, mend) {
  const { gateway, client } = await withoutRedis(settings);
  await gateway.waitForLog(why);
  assert.equal((await scrape(gateway.url)).get('taskcast_redis_up'), 0);
  const { code, stdout } = await check(settings);
  assert.equal(code, 1);
  assert.match(stdout, why);
  assert.match(stdout, mend);
  assert.ok(!`${gateway.output}${stdout}`.includes('hunter'), 'a secret');
  return { gateway, client };
}

test('nodes communicate over TLS, with a user that has only the documented rights', async () => {
  const nodes = await Promise.all([0, 1].map(() => begin(env('gateway:hunter2'))));
  await until(async () => (await Promise.all(nodes.map((node) => node.health()))).every(({ status, cluster }) => status === 'ok' && cluster.nodes.length === 2), 'all nodes know of each other');
  const clients = await Promise.all(nodes.map(async (node) => Client.connect(node, await member('ann'))));
  for (const client of clients) await client.joinDashboard();
  const answer = await fetch(`${nodes[0].url}/api/admin/disconnect`, {
    method: 'POST', headers: { authorization: `Bearer ${await member('root', 'acme', { scope: 'admin' })}`, 'content-type': 'application/json' }, body: '{"userId": "ann"}',
  });
  assert.equal((await answer.json()).everywhere, true);
  await until(() => clients.every(({ socket }) => !socket.connected), 'both are disconnected');
  for (const node of nodes) assert.equal((await scrape(node.url)).get('taskcast_redis_lost_total'), 0, node.lastLines());
  const { code, stdout } = await check(env('gateway:hunter2'));
  assert.equal(code, 0, stdout);
  assert.match(stdout, /^ok: Redis 7/m);
});

test('a wrong password is reported, and the gateway recovers when it is corrected', async () => {
  const { gateway, client } = await refusedFor(env('gateway:hunter3'), /Redis refuses the user of REDIS_URL.*WRONGPASS/, /check user and password of REDIS_URL/);
  await setUser('gateway', '>hunter2', '>hunter3', ...RIGHTS);
  await until(async () => (await gateway.health()).status === 'ok', 'health is ok');
  assert.deepEqual(client.disconnects, []);
});

test('missing rights of the Redis user are reported', async () => {
  await setUser('weak', '>hunter4', ...RIGHTS.filter((right) => right !== '+evalsha'));
  const { gateway, client } = await withoutRedis(env('weak:hunter4'));
  await gateway.waitForLog(/Redis refuses the user of REDIS_URL.*evalsha/);
  assert.deepEqual(client.disconnects, []);
});

test('a certificate that is not trusted, or that has another name, is reported', async () => {
  await refusedFor(env('gateway:hunter2', { SSL_CERT_FILE: undefined }), /the certificate of Redis is not trusted: UnknownIssuer/, /SSL_CERT_FILE/);
  await refusedFor(env('gateway:hunter2', { REDIS_URL: `rediss://gateway:hunter2@localhost:${redis.port}` }), /the certificate of Redis is not trusted: NotValidForName/, /use a server name in REDIS_URL/);
});
