// The gateway is killed, or starts while MongoDB is unreachable.
import assert from 'node:assert/strict';

import { until } from '../e2e/support/until.js';
import { withTestbed, seconds } from './support/testbed.js';
import { GATEWAY } from './support/replica-set.js';

/** The gateway is killed under load and restarted. A client that resyncs with `since` gets exactly what it missed, without a state. */
async function killed(ctx) {
  return withTestbed(ctx, {}, async (testbed) => {
    await testbed.populate();
    await testbed.write();
    const since = testbed.watchers.filter(({ kind }) => kind === 'since');
    const states = since.map((watcher) => new Map(watcher.states));
    const rounds = ctx.long ? 3 : 1;
    for (let round = 0; round < rounds; round += 1) {
      await testbed.gateway.kill();
      await until(() => testbed.watchers.every(({ connected }) => !connected), 'all clients have lost their connection');
      await testbed.moreWrites(ctx.long ? 200 : 20);
      // The existing client stops reconnecting after 10 s at the earliest.
      if (ctx.long && round === 0) await seconds(9);
      await testbed.gateway.launch();
      await until(() => testbed.watchers.every(({ connected }) => connected), 'all clients are connected again', 60_000);
      await until(() => since.every((watcher) => watcher.recovered.length === watcher.rooms().length * (round + 1)), 'every resync is answered', 60_000);
    }
    await testbed.moreWrites();
    const row = await testbed.judge({ note: `${since.length} clients by since, ${rounds} restarts` });
    for (const [n, watcher] of since.entries()) {
      assert.deepEqual(watcher.recovered.filter((recovered) => recovered !== true), [], 'each resync is recovered');
      assert.deepEqual(new Map(watcher.states), states[n], 'no state was sent');
    }
    return row;
  });
}

/** The gateway starts while MongoDB does not answer. It accepts clients, and sends their states when MongoDB answers. */
async function storeAwayAtStart(ctx) {
  return withTestbed(ctx, { launch: false }, async (testbed) => {
    await testbed.set.proxies.harm({ refuse: true }, { name: GATEWAY });
    testbed.gateway.spawn();
    await until(async () => (await testbed.health()).store.ok === false, 'health shows that MongoDB is unreachable', 30_000);
    await testbed.populate({ ready: false });
    assert.ok(testbed.watchers.every(({ states }) => states.size === 0), 'no client has a state yet');
    await testbed.set.proxies.heal();
    for (const watcher of testbed.watchers) await watcher.ready();
    await testbed.forbiddenJoins;
    await testbed.write();
    const row = await testbed.judge();
    for (const watcher of testbed.watchers) assert.deepEqual(watcher.disconnects, [], 'no client was disconnected');
    return row;
  });
}

export const scenarios = [
  { name: 'gateway killed', short: killed, long: killed },
  { name: 'store away at the start', short: storeAwayAtStart, long: storeAwayAtStart },
];
