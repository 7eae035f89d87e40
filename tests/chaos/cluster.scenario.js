// Three nodes behind nginx: what is broken is one node, or Redis, or a way to either. Who was on another node notices nothing.
import assert from 'node:assert/strict';

import { until } from '../e2e/support/until.js';
import { assertSpread, inCluster } from './support/cluster-field.js';
import { seconds } from './support/field.js';

/** `fault` returns how many clients must have lost their connection by it: none, if it does not say. */
function survived(name, fault) {
  const run = (ctx) => inCluster(ctx, {}, async (field) => {
    await field.populate();
    const spread = await assertSpread(field);
    await field.write();
    const hit = (await fault(field, ctx, spread)) ?? 0;
    await field.moreWrites();
    await field.acquainted();
    const row = await field.judge();
    assert.equal(field.hit().length, hit, `clients that lost their connection; there were ${spread}`);
    row.note = `${hit} clients hit${hit < field.size.clients ? `; silence of the others ${field.calm()} ms` : ''}`;
    return row;
  });
  return { name: `cluster: ${name}`, short: run, long: run };
}

/** Nobody can be reached through it; what has been said stays under way. */
async function stalled(field, which, ms, while_) {
  await field.set.proxies.harm({ stall: 'both' }, which);
  try {
    await while_();
    await seconds(ms);
  } finally {
    await field.set.proxies.heal();
  }
}

/** Waits until nobody is without a connection. */
const connected = (field) => until(() => field.watchers.every((watcher) => watcher.connected), () => `everybody is connected; not: ${
  field.watchers.filter((watcher) => !watcher.connected).map(({ kind, socket, disconnects, refusals }) => JSON.stringify({ kind, transports: socket.io.opts.transports, disconnects, refusals: refusals.slice(-3) })).join(' ')}\n${field.gateway.lastLines()}`, 60_000);

const degraded = (node, why) => until(async () => why(await node.health()), `${node.name} notices`, 30_000);

export const scenarios = [
  survived('kill -9 of a node', async (field, { long }, spread) => {
    const [node] = field.nodes;
    await node.kill();
    await field.moreWrites(long ? 1000 : 30);
    await connected(field);
    await node.launch();
    return spread[0];
  }),

  survived('SIGSTOP of a node', async (field, { long }) => {
    process.kill(field.nodes[1].child.pid, 'SIGSTOP');
    try {
      await until(async () => (await field.nodes[0].health()).cluster.nodes.length === 2, 'the others know', 30_000);
      await seconds(long ? 24 : 0);
    } finally {
      process.kill(field.nodes[1].child.pid, 'SIGCONT');
    }
  }),

  survived('a node without Redis', async (field, { long }) => {
    await stalled(field, { port: field.nodes[2].redisPort }, long ? 20 : 1, () => degraded(field.nodes[2], ({ cluster }) => !cluster.ok));
  }),

  survived('a node without MongoDB', async (field, { long }) => {
    await stalled(field, { name: field.nodes[1].name }, long ? 20 : 1, () => degraded(field.nodes[1], ({ store }) => !store.ok));
  }),

  survived('Redis killed, and back empty', async (field, { long }) => {
    await field.redis.stop();
    await until(async () => (await field.healths()).every(({ status, cluster }) => status === 'degraded' && !cluster.ok), 'all nodes notice', 30_000);
    await seconds(long ? 20 : 1);
    await field.redis.launch();
    await field.acquainted();
  }),

  survived('CLIENT KILL, again and again', async (field, { long }) => {
    let killed = 0;
    for (let round = 0; round < (long ? 20 : 4); round += 1) {
      killed += await field.redis.killClients();
      await field.moreWrites(long ? 100 : 15);
    }
    assert.ok(killed >= field.nodes.length, 'they had connections');
  }),

  survived('CLIENT PAUSE', async (field, { long }) => {
    await field.redis.ask((client) => client.sendCommand(['CLIENT', 'PAUSE', long ? '20000' : '4000', 'ALL']));
    await until(async () => (await field.healths()).every(({ cluster }) => !cluster.ok), 'all nodes notice', 30_000);
  }),

  survived('rolling SIGTERM', async (field, { long }) => {
    for (const node of field.nodes) {
      node.child.kill('SIGTERM');
      assert.deepEqual(await node.child.exited, { code: 0, signal: null });
      await connected(field);
      await field.moreWrites(long ? 500 : 20);
      await node.launch();
      await field.acquainted();
    }
    return field.hit().length;
  }),
];
