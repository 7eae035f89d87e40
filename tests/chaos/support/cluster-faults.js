// Faults of a cluster: in a node, in Redis, or in a connection to either. Each `strike` returns how many clients must have lost their
// connection, or nothing for none.
import assert from 'node:assert/strict';

import { seconds } from './testbed.js';

/** Stalls the matching connections while `while_` runs and for `ms` more seconds. Bytes in transit are kept. */
async function stalled(testbed, which, ms, while_) {
  await testbed.set.proxies.harm({ stall: 'both' }, which);
  try {
    await while_();
    await seconds(ms);
  } finally {
    await testbed.set.proxies.heal();
  }
}

const degraded = (testbed, node, why) => testbed.waitForFault(async () => why(await node.health()), `${node.name} notices the fault`);

export const faults = [
  {
    name: 'kill -9 of a node',
    async strike(testbed, { long }, spread) {
      const [node] = testbed.nodes;
      await node.kill();
      await testbed.moreWrites(long ? 1000 : 30);
      await testbed.connected();
      await node.launch();
      return spread[0];
    },
  },
  {
    name: 'SIGSTOP of a node',
    async strike(testbed, { long }) {
      process.kill(testbed.nodes[1].child.pid, 'SIGSTOP');
      // A client gives up when a ping is PING_TIMEOUT (20 s) late, and a ping may be due right after the stop. The other nodes may notice late
      // on a busy machine, so the time begins here.
      const stopped = seconds(long ? 18 : 0);
      try {
        await testbed.waitForFault(async () => (await testbed.nodes[0].health()).cluster.nodes.length === 2, 'the other nodes notice');
        await stopped;
      } finally {
        process.kill(testbed.nodes[1].child.pid, 'SIGCONT');
      }
    },
  },
  {
    name: 'a node without Redis',
    /** The proxy causes this fault. */
    proxied: true,
    async strike(testbed, { long, away }) {
      await stalled(testbed, { port: testbed.nodes[2].redisPort }, long ? 20 : 1, async () => {
        await degraded(testbed, testbed.nodes[2], ({ cluster }) => !cluster.ok);
        await away?.();
      });
    },
  },
  {
    name: 'a node without MongoDB',
    async strike(testbed, { long }) {
      await stalled(testbed, { name: testbed.nodes[1].name }, long ? 20 : 1, () => degraded(testbed, testbed.nodes[1], ({ store }) => !store.ok));
    },
  },
  {
    name: 'Redis killed, and back empty',
    async strike(testbed, { long }) {
      await testbed.redis.stop();
      await testbed.waitForFault(async () => (await testbed.healths()).every(({ status, cluster }) => status === 'degraded' && !cluster.ok), 'all nodes notice');
      await seconds(long ? 20 : 1);
      await testbed.redis.launch();
      await testbed.nodesConnected();
    },
  },
  {
    name: 'CLIENT KILL, again and again',
    async strike(testbed, { long }) {
      let killed = 0;
      for (let round = 0; round < (long ? 20 : 4); round += 1) {
        killed += await testbed.redis.killClients();
        await testbed.moreWrites(long ? 100 : 15);
      }
      assert.ok(killed >= testbed.nodes.length, 'the nodes had connections');
    },
  },
  {
    name: 'CLIENT PAUSE',
    async strike(testbed, { long }) {
      await testbed.redis.ask((client) => client.sendCommand(['CLIENT', 'PAUSE', long ? '20000' : '4000', 'ALL']));
      await testbed.waitForFault(async () => (await testbed.healths()).every(({ cluster }) => !cluster.ok), 'all nodes notice');
    },
  },
  {
    name: 'rolling SIGTERM',
    async strike(testbed, { long }) {
      for (const node of testbed.nodes) {
        node.child.kill('SIGTERM');
        assert.deepEqual(await node.child.exited, { code: 0, signal: null });
        await testbed.connected();
        await testbed.moreWrites(long ? 500 : 20);
        await node.launch();
        await testbed.nodesConnected();
      }
      return testbed.hit().length;
    },
  },
];
