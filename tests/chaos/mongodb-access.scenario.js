// The gateway temporarily loses access to MongoDB: its user is dropped, its host name does not resolve, or its reads are denied. No event
// is lost, no client is disconnected, and the epoch does not change.
import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { until } from '../e2e/support/until.js';
import { withTestbed, seconds } from './support/testbed.js';
import { GATEWAY } from './support/replica-set.js';

/**
 * Removes the access to MongoDB under load, restores it, and compares every client with the database. A join that is sent meanwhile is
 * answered once the access is restored.
 */
async function removeAndRestoreAccess(testbed, ctx, { remove, restore }) {
  await testbed.populate();
  await testbed.write();
  await remove();
  await testbed.set.proxies.cut({ name: GATEWAY });
  const health = await until(async () => {
    const health = await testbed.health();
    return !health.store.ok && health;
  }, () => `health shows that MongoDB is unreachable\n${testbed.gateway.lastLines()}`, 30_000);
  assert.equal(health.status, 'degraded');
  const [{ socket }] = testbed.watchers;
  let answered = false;
  const pending = socket.emitWithAck('task:join', { taskId: testbed.hidden[0] }).then((answer) => {
    answered = true;
    return answer;
  });
  // This avoids an unhandled rejection, so that an earlier failure is reported instead.
  pending.catch(() => {});
  await testbed.moreWrites();
  if (ctx.long) await seconds(8);
  assert.equal(answered, false, 'the join stays pending');
  await restore();
  assert.equal((await pending).error.code, 'not_found', 'the join is answered');
  await testbed.moreWrites();
  const row = await testbed.judge();
  for (const watcher of testbed.watchers) assert.deepEqual(watcher.disconnects, [], 'no client was disconnected');
  return row;
}

/** The gateway's MongoDB user is dropped and created again, as in a password rotation. */
async function userDropped(ctx) {
  const set = await ctx.replicaSet();
  const user = { createUser: 'gateway', pwd: 'of-the-gateway', roles: ['root'], writeConcern: { w: 'majority' } };
  const drop = { dropUser: 'gateway', writeConcern: { w: 'majority' } };
  await set.command(user);
  try {
    const MONGODB_URI = set.uri.replace('mongodb://', 'mongodb://gateway:of-the-gateway@').concat('&authSource=admin');
    return await withTestbed(ctx, { env: { MONGODB_URI } }, async (testbed) => {
      const row = await removeAndRestoreAccess(testbed, ctx, { remove: () => set.command(drop), restore: () => set.command(user) });
      await testbed.gateway.waitForLog(/refused the user name or password/);
      assert.doesNotMatch(testbed.gateway.output, /of-the-gateway/);
      return row;
    });
  } finally {
    await set.command(drop);
  }
}

/** The host name of MongoDB no longer resolves. The gateway runs with its own hosts file. */
async function hostUnresolvable(ctx) {
  const set = await ctx.replicaSet();
  await set.waitUntilHealthy();
  const primary = await set.primary();
  const hosts = join(mkdtempSync(join(tmpdir(), 'hosts-')), 'hosts');
  const resolve = (name) => writeFileSync(hosts, `127.0.0.1 localhost ${name}\n`);
  resolve('mongo.example');
  const unshare = process.getuid() === 0 ? ['unshare', '--mount'] : ['unshare', '--mount', '--map-root-user'];
  const under = [...unshare, 'sh', '-c', 'mount --bind "$0" /etc/hosts && exec "$@"', hosts];
  const MONGODB_URI = `mongodb://mongo.example:${primary.proxyPort}/?directConnection=true`;
  return withTestbed(ctx, { env: { MONGODB_URI }, under }, (testbed) =>
    removeAndRestoreAccess(testbed, ctx, {
      remove: async () => resolve('another.example'), restore: async () => resolve('mongo.example'),
    }));
}

/** The gateway loses a privilege that only joins need. Joins wait until it is back, and the log names the reason. */
async function readsDenied(ctx) {
  return withTestbed(ctx, {}, async (testbed) => {
    await testbed.populate();
    await testbed.write();
    await testbed.set.fail('alwaysOn', { failCommands: ['find'], errorCode: 13 });
    let answered = false;
    let pending;
    try {
      pending = testbed.watchers[0].socket.emitWithAck('task:join', { taskId: testbed.hidden[0] }).then((answer) => {
        answered = true;
        return answer;
      });
      pending.catch(() => {});
      await until(() => /a join waits for the store.*lacks a privilege/.test(testbed.gateway.output), () => `the log names the missing privilege\n${testbed.gateway.lastLines()}`, 30_000);
      await testbed.moreWrites();
      assert.equal(answered, false, 'the join stays pending');
    } finally {
      await testbed.set.healFailures();
    }
    assert.equal((await pending).error.code, 'not_found', 'the join is answered');
    return testbed.judge();
  });
}

export const scenarios = [
  { name: 'MongoDB user dropped', short: userDropped, long: userDropped },
  { name: 'reads denied', short: readsDenied, long: readsDenied },
  { name: 'MongoDB host name does not resolve', short: hostUnresolvable, long: hostUnresolvable },
];
