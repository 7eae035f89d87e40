// Errors of the program when it cannot start.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { jwtVerify } from 'jose';

import { JWT_SECRET } from './support/gateway.js';
import { freshDatabase, startMongod } from './support/mongo.js';
import { binary } from './support/paths.js';
import { freePort } from './support/ports.js';
import { run } from './support/processes.js';
import { test } from './support/scenario.js';

let cwd;

before(() => {
  cwd = mkdtempSync(join(tmpdir(), 'taskcast-startup-'));
});
after(() => rmSync(cwd, { recursive: true, force: true }));

async function taskcast(args, env = {}) {
  const result = await run(binary(), args, {
    cwd, env: { PATH: process.env.PATH, HOME: cwd, HOST: '127.0.0.1', PORT: String(await freePort()), ...env },
  });
  return { ...result, output: result.stdout + result.stderr };
}

test('the error names all invalid settings at once, never their values', async () => {
  const { code, output } = await taskcast(['serve'], {
    PORT: 'eighty-eighty', JOIN_RATE_PER_SECOND: 'quick-quick', PING_INTERVAL: 'now-now', MONGODB_IMAGES: 'maybe-maybe', REDIS_URL: 'not-a-url', JWT_SECRET,
  });
  assert.equal(code, 2);
  for (const name of ['PORT', 'JOIN_RATE_PER_SECOND', 'PING_INTERVAL', 'MONGODB_IMAGES', 'REDIS_URL']) assert.match(output, new RegExp(name));
  for (const value of ['eighty-eighty', 'quick-quick', 'now-now', 'maybe-maybe', 'not-a-url', JWT_SECRET]) assert.ok(!output.includes(value), value);
});

test('a public address without a key is an error', async () => {
  const { code, output } = await taskcast(['serve'], { HOST: '0.0.0.0' });
  assert.equal(code, 2);
  assert.match(output, /JWT_SECRET/);
});

test('help lists every setting', async () => {
  const { code, stdout } = await taskcast(['serve', '--help']);
  assert.equal(code, 0);
  for (const name of ['--mongodb-uri', '--jwt-secret', '--websocket-cors-origin', '--send-queue', '--shutdown-grace', '--trusted-proxies']) {
    assert.ok(stdout.includes(name), name);
  }
});

test('another library verifies a printed token', async () => {
  const { code, stdout } = await taskcast(['token', '--sub', 'alice', '--org', 'acme', '--name', 'Alice', '--scope', 'tasks:write', '--ttl', '1h'], { JWT_SECRET });
  assert.equal(code, 0);
  const { payload } = await jwtVerify(stdout.trim(), new TextEncoder().encode(JWT_SECRET), { algorithms: ['HS256'] });
  assert.deepEqual([payload.sub, payload.orgId, payload.name, payload.scope, payload.exp - payload.iat], ['alice', 'acme', 'Alice', 'tasks:write', 3600]);
});

test('MongoDB without a replica set is an error that says how to fix it', async () => {
  const alone = await startMongod({ replicaSet: null });
  try {
    for (const command of ['serve', 'check']) {
      const { code, output } = await taskcast([command], { JWT_SECRET, MONGODB_URI: alone.uri, MONGODB_DB: 'alone' });
      assert.notEqual(code, 0, `${command}: ${output}`);
      assert.match(output, /--replSet.*rs\.initiate/, command);
    }
  } finally {
    await alone.stop();
  }
});

test('MONGODB_IMAGES=require on a collection without images is an error that names the command, and changes nothing', async () => {
  const database = await freshDatabase();
  try {
    await database.db.createCollection('tasks');
    const env = { JWT_SECRET, ...database.env, MONGODB_IMAGES: 'require' };
    for (const command of ['serve', 'check']) {
      const { code, output } = await taskcast([command], env);
      assert.notEqual(code, 0, `${command}: ${output}`);
      assert.match(output, /collMod/);
      assert.match(output, /changeStreamPreAndPostImages/);
    }
    const [{ options }] = await database.db.listCollections({ name: 'tasks' }).toArray();
    assert.deepEqual(options, {});
    await database.db.command({ collMod: 'tasks', changeStreamPreAndPostImages: { enabled: true } });
    const { code, output } = await taskcast(['check'], env);
    assert.equal(code, 0, output);
  } finally {
    await database.close();
  }
});
