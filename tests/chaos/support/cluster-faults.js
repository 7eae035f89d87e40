// Faults of a cluster: in a node, in Redis, or in a connection to either. Each `strike` returns how many clients must have lost their
// connection, or nothing for none.
import assert from 'node:assert/strict';

import { seconds } from './field.js';

/** Stalls the matching connections while `while_` runs and for `ms` more seconds. Bytes in transit are kept. */
async function stalled(field, which, ms, while_) {
  await field.set.proxies.harm({ stall: 'both' }, which);
  try {
    await while_();
    await seconds(ms);
  } finally {
    await field.set.proxies.heal();
  }
}

const degraded = (field, node, why) => field.noticed(async () => why(await node.health()), `${node.name} notices the fault`);

export const faults = [
  {
    name: 'kill -9 of a node',
    async strike(field, { long }, spread) {
      const [node] = field.nodes;
      await node.kill();
      await field.moreWrites(long ? 1000 : 30);
      await field.connected();
      await node.launch();
      return spread[0];
    },
  },
  {
    name: 'SIGSTOP of a node',
    async strike(field, { long }) {
      process.kill(field.nodes[1].child.pid, 'SIGSTOP');
      try {
        await field.noticed(async () => (await field.nodes[0].health()).cluster.nodes.length === 2, 'the other nodes notice');
        await seconds(long ? 24 : 0);
      } finally {
        process.kill(field.nodes[1].child.pid, 'SIGCONT');
      }
    },
  },
  {
    name: 'a node without Redis',
    /** The proxy causes this fault. */
    proxied: true,
    async strike(field, { long, away }) {
      await stalled(field, { port: field.nodes[2].redisPort }, long ? 20 : 1, async () => {
        await degraded(field, field.nodes[2], ({ cluster }) => !cluster.ok);
        await away?.();
      });
    },
  },
  {
    name: 'a node without MongoDB',
    async strike(field, { long }) {
      await stalled(field, { name: field.nodes[1].name }, long ? 20 : 1, () => degraded(field, field.nodes[1], ({ store }) => !store.ok));
    },
  },
  {
    name: 'Redis killed, and back empty',
    async strike(field, { long }) {
      await field.redis.stop();
      await field.noticed(async () => (await field.healths()).every(({ status, cluster }) => status === 'degraded' && !cluster.ok), 'all nodes notice');
      await seconds(long ? 20 : 1);
      await field.redis.launch();
      await field.acquainted();
    },
  },
  {
    name: 'CLIENT KILL, again and again',
    async strike(field, { long }) {
      let killed = 0;
      for (let round = 0; round < (long ? 20 : 4); round += 1) {
        killed += await field.redis.killClients();
        await field.moreWrites(long ? 100 : 15);
      }
      assert.ok(killed >= field.nodes.length, 'the nodes had connections');
    },
  },
  {
    name: 'CLIENT PAUSE',
    async strike(field, { long }) {
      await field.redis.ask((client) => client.sendCommand(['CLIENT', 'PAUSE', long ? '20000' : '4000', 'ALL']));
      await field.noticed(async () => (await field.healths()).every(({ cluster }) => !cluster.ok), 'all nodes notice');
    },
  },
  {
    name: 'rolling SIGTERM',
    async strike(field, { long }) {
      for (const node of field.nodes) {
        node.child.kill('SIGTERM');
        assert.deepEqual(await node.child.exited, { code: 0, signal: null });
        await field.connected();
        await field.moreWrites(long ? 500 : 20);
        await node.launch();
        await field.acquainted();
      }
      return field.hit().length;
    },
  },
];
