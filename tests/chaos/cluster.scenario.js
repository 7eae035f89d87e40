// Three nodes behind nginx, and once behind HAProxy. A fault hits one node, Redis, or a connection to either. Clients of other nodes
// notice nothing.
import assert from 'node:assert/strict';

import { faults } from './support/cluster-faults.js';
import { assertSpread, withCluster } from './support/cluster-testbed.js';
import { DisconnectedUser } from './support/disconnected-user.js';

function survived({ name, strike }, options = {}) {
  const run = (ctx) => withCluster(ctx, options, async (testbed) => {
    await testbed.populate();
    const spread = await assertSpread(testbed);
    await testbed.write();
    let missed;
    /** Disconnects a user while one node cannot learn of it. */
    const away = async () => {
      missed = await DisconnectedUser.on(testbed.nodes, 'meanwhile');
      await missed.disconnect();
      await missed.waitUntilDisconnected(testbed.nodes.length - 1);
    };
    const hit = (await strike(testbed, { ...ctx, away }, spread)) ?? 0;
    if (missed) testbed.notes.push(`a disconnect that a node missed took effect ${await missed.waitUntilDisconnected()} ms after the node's return`);
    await testbed.moreWrites();
    await testbed.nodesConnected();
    const disconnectedUser = await DisconnectedUser.on(testbed.nodes, 'suspect');
    const out = disconnectedUser.waitUntilDisconnected();
    await disconnectedUser.disconnect();
    testbed.notes.unshift(`a disconnect took ${await out} ms`);
    const row = await testbed.judge();
    assert.equal(testbed.hit().length, hit, `clients that lost their connection; there were ${spread}`);
    row.note = `${hit} clients hit${hit < testbed.size.clients ? `; silence of the others ${testbed.longestSilence()} ms` : ''}; ${testbed.notes.join('; ')}`;
    return row;
  });
  return { name: `cluster: ${name}`, short: run, long: run };
}

const rolling = faults.find(({ name }) => name === 'rolling SIGTERM');

export const scenarios = [
  ...faults.map((fault) => survived(fault)),
  // A rolling deploy behind the other balancer of deploy/.
  survived({ ...rolling, name: 'rolling SIGTERM behind HAProxy' }, { balancer: 'haproxy' }),
];
