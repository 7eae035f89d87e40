// The gateway itself goes, or comes up while the store is away.
import assert from 'node:assert/strict';

import { until } from '../e2e/support/until.js';
import { inField, seconds } from './support/field.js';
import { GATEWAY } from './support/replica-set.js';

/** Killed under load and started again: who asks with `since` is given exactly what it missed, without a state. */
async function killed(ctx) {
  return inField(ctx, {}, async (field) => {
    await field.populate();
    await field.write();
    const since = field.watchers.filter(({ kind }) => kind === 'since');
    const states = since.map((watcher) => new Map(watcher.states));
    const rounds = ctx.long ? 3 : 1;
    for (let round = 0; round < rounds; round += 1) {
      await field.gateway.kill();
      await until(() => field.watchers.every(({ connected }) => !connected), 'everybody has lost its connection');
      await field.moreWrites(ctx.long ? 200 : 20);
      // The existing client gives up after 10 s at the earliest.
      if (ctx.long && round === 0) await seconds(9);
      await field.gateway.launch();
      await until(() => field.watchers.every(({ connected }) => connected), 'everybody is back', 60_000);
      await until(() => since.every((watcher) => watcher.recovered.length === watcher.rooms().length * (round + 1)), 'every resync is answered', 60_000);
    }
    await field.moreWrites();
    const row = await field.judge({ note: `${since.length} clients by since, ${rounds} restarts` });
    for (const [n, watcher] of since.entries()) {
      assert.deepEqual(watcher.recovered.filter((recovered) => recovered !== true), [], 'recovered');
      assert.deepEqual(new Map(watcher.states), states[n], 'no state was sent');
    }
    return row;
  });
}

/** Started while no server answers: clients are let in, and are given their states as soon as it does. */
async function storeAwayAtStart(ctx) {
  return inField(ctx, { launch: false }, async (field) => {
    await field.set.proxies.harm({ refuse: true }, { name: GATEWAY });
    field.gateway.spawn();
    await until(async () => (await field.health()).store.ok === false, 'it says that the store is away', 30_000);
    await field.populate({ ready: false });
    assert.ok(field.watchers.every(({ states }) => states.size === 0), 'nobody can have a state yet');
    await field.set.proxies.heal();
    for (const watcher of field.watchers) await watcher.ready();
    await field.forbiddenJoins;
    await field.write();
    const row = await field.judge();
    for (const watcher of field.watchers) assert.deepEqual(watcher.disconnects, [], 'nobody was disconnected');
    return row;
  });
}

export const scenarios = [
  { name: 'gateway killed', short: killed, long: killed },
  { name: 'store away at the start', short: storeAwayAtStart, long: storeAwayAtStart },
];
