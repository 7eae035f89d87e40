// Faults that the change stream survives: each client in a room gets each event once and in order, and the epoch does not change.
import assert from 'node:assert/strict';

import { scrape } from '../e2e/support/metrics.js';
import { until } from '../e2e/support/until.js';
import { withTestbed, seconds } from './support/testbed.js';
import { GATEWAY } from './support/replica-set.js';

/** The commands of a change stream. */
const STREAM = ['getMore', 'aggregate'];

/** A scenario whose sizes differ only in how `fault` uses `ctx.long`. */
function outlived(name, fault, options = {}) {
  const run = (ctx) => withTestbed(ctx, options, async (testbed) => {
    await testbed.populate();
    const peer = ctx.long ? await testbed.peer() : null;
    await testbed.write();
    peer?.silence.begin();
    const more = (await fault(testbed, ctx)) ?? {};
    await testbed.moreWrites();
    const row = await testbed.judge({ note: more.note });
    if (peer) {
      const driver = peer.failed ? `failed: ${peer.failed.codeName ?? peer.failed.name}` : `${Math.round(peer.silence.longest)} ms`;
      row.note = [row.note, `the official driver: ${driver}`].filter(Boolean).join('; ');
      await peer.stop();
      if (more.bound && !peer.failed) assert.ok(row.silenceMs <= peer.silence.longest + more.bound, `silence ${row.silenceMs}, ${row.note}`);
    }
    for (const watcher of testbed.watchers) assert.deepEqual(watcher.disconnects, [], 'no client was disconnected');
    return row;
  });
  return { name, short: run, long: run };
}

/**
 * MongoDB takes 2, 6 and 20 s for each answer, while its heartbeat is normal. The change stream waits and stays open. Health and
 * metrics show the lag of the clients.
 */
function slowServer() {
  return outlived('slow server', async (testbed, { long }) => {
    const metrics = () => scrape(testbed.gateway.url);
    const restarts = async () => (await metrics()).get('taskcast_stream_restarts_total');
    const before = await restarts();
    const late = [];
    for (const delay of [2, 6, 20]) {
      await testbed.set.proxies.harm({ slow: delay * 1000 }, { name: GATEWAY });
      for (let times = 0; times < (long ? 3 : 1); times += 1) {
        await until(async () => (await testbed.health()).relay.lagMs >= delay * 1000, () => `health shows a lag of ${delay} s`, 120_000);
        late.push((await testbed.health()).relay.lagMs);
        await testbed.moreWrites(long ? 200 : 10);
      }
      assert.ok((await metrics()).get('taskcast_relay_lag_seconds') >= delay / 2, 'metrics show the lag');
      await testbed.set.proxies.heal();
    }
    await until(async () => (await testbed.health()).relay.lagMs < 1000, 'the lag ends with the delay', 60_000);
    assert.equal(await restarts(), before, 'the stream was not opened again');
    return { note: `lags of ${late.map((ms) => Math.round(ms / 1000)).join(', ')} s` };
  });
}

export const scenarios = [
  outlived('stepdown', async ({ set }) => {
    await set.stepDown();
    return { bound: 1500 };
  }),

  outlived('kill -9 of the primary', async (testbed) => {
    const primary = await testbed.set.primary();
    primary.signal('SIGKILL');
    await primary.child.exited;
    await until(async () => (await testbed.set.primary()) !== primary, 'another primary', 60_000);
    await testbed.moreWrites();
    primary.launch();
    await testbed.set.waitUntilHealthy();
  }),

  outlived('SIGSTOP of the primary', async (testbed, { long }) => {
    const primary = await testbed.set.primary();
    primary.signal('SIGSTOP');
    try {
      await seconds(long ? 30 : 5);
    } finally {
      primary.signal('SIGCONT');
    }
    await testbed.set.waitUntilHealthy();
  }),

  outlived('connections cut', async (testbed, { long }) => {
    let cut = 0;
    for (let round = 0; round < (long ? 20 : 4); round += 1) {
      cut += await testbed.set.proxies.cut({ name: GATEWAY });
      await testbed.moreWrites(long ? 200 : 10);
    }
    assert.ok(cut > 0, 'the gateway has connections through the proxies');
    return { note: `${cut} connections` };
  }),

  outlived('connections half-open', async (testbed, { long }) => {
    assert.ok((await testbed.set.proxies.cut({ name: GATEWAY, halfOpen: true })) > 0);
    await testbed.moreWrites(long ? 1000 : 30);
  }),

  outlived('network stalled', async (testbed, { long }) => {
    await testbed.set.proxies.harm({ stall: 'both' }, { name: GATEWAY });
    await seconds(long ? 12 : 3);
    await testbed.set.proxies.heal();
  }),

  outlived('latency of 100 ms', async (testbed, { long }) => {
    await testbed.set.proxies.harm({ latency: 100 }, { name: GATEWAY });
    await seconds(long ? 10 : 1);
    await testbed.set.proxies.heal();
  }),

  slowServer(),

  ...[43, 11600, 10107, 91].map((errorCode) => outlived(`failCommand ${errorCode}`, async (testbed) => {
    await testbed.set.fail(3, { failCommands: STREAM, errorCode });
    await testbed.moreWrites();
  })),

  outlived('failCommand closeConnection', async (testbed) => {
    await testbed.set.fail(3, { failCommands: STREAM, closeConnection: true });
    await testbed.moreWrites();
  }),

  outlived('cursor killed', async (testbed, { long }) => {
    let killed = 0;
    for (let round = 0; round < (long ? 10 : 3); round += 1) {
      killed += await testbed.set.killCursors();
      await testbed.moreWrites(long ? 200 : 20);
    }
    assert.ok(killed > 0, 'there were cursors');
    return { note: `${killed} cursors` };
  }),

  outlived('no server while watching again', async (testbed, { long }) => {
    // The driver's server selection fails after 5 s.
    await testbed.set.proxies.harm({ refuse: true }, { name: GATEWAY });
    await testbed.set.proxies.cut({ name: GATEWAY });
    await until(async () => !(await testbed.health()).store.ok, 'health shows that MongoDB is unreachable', 30_000);
    await seconds(long ? 8 : 1);
    await testbed.set.proxies.heal();
  }),
];
