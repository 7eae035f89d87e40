// Faults that the change stream survives: each client in a room gets each event once and in order, and the epoch does not change.
import assert from 'node:assert/strict';

import { scrape } from '../e2e/support/metrics.js';
import { until } from '../e2e/support/until.js';
import { inField, seconds } from './support/field.js';
import { GATEWAY } from './support/replica-set.js';

/** The commands of a change stream. */
const STREAM = ['getMore', 'aggregate'];

/** A scenario whose sizes differ only in how `fault` uses `ctx.long`. */
function outlived(name, fault, options = {}) {
  const run = (ctx) => inField(ctx, options, async (field) => {
    await field.populate();
    const peer = ctx.long ? await field.peer() : null;
    await field.write();
    peer?.silence.begin();
    const more = (await fault(field, ctx)) ?? {};
    await field.moreWrites();
    const row = await field.judge({ note: more.note });
    if (peer) {
      const driver = peer.failed ? `failed: ${peer.failed.codeName ?? peer.failed.name}` : `${Math.round(peer.silence.longest)} ms`;
      row.note = [row.note, `the official driver: ${driver}`].filter(Boolean).join('; ');
      await peer.stop();
      if (more.bound && !peer.failed) assert.ok(row.silenceMs <= peer.silence.longest + more.bound, `silence ${row.silenceMs}, ${row.note}`);
    }
    for (const watcher of field.watchers) assert.deepEqual(watcher.disconnects, [], 'no client was disconnected');
    return row;
  });
  return { name, short: run, long: run };
}

/**
 * MongoDB takes 2, 6 and 20 s for each answer, while its heartbeat is normal. The change stream waits and stays open. Health and
 * metrics show the lag of the clients.
 */
function slowServer() {
  return outlived('slow server', async (field, { long }) => {
    const metrics = () => scrape(field.gateway.url);
    const restarts = async () => (await metrics()).get('taskcast_stream_restarts_total');
    const before = await restarts();
    const late = [];
    for (const delay of [2, 6, 20]) {
      await field.set.proxies.harm({ slow: delay * 1000 }, { name: GATEWAY });
      for (let times = 0; times < (long ? 3 : 1); times += 1) {
        await until(async () => (await field.health()).relay.lagMs >= delay * 1000, () => `health shows a lag of ${delay} s`, 120_000);
        late.push((await field.health()).relay.lagMs);
        await field.moreWrites(long ? 200 : 10);
      }
      assert.ok((await metrics()).get('taskcast_relay_lag_seconds') >= delay / 2, 'metrics show the lag');
      await field.set.proxies.heal();
    }
    await until(async () => (await field.health()).relay.lagMs < 1000, 'the lag ends with the delay', 60_000);
    assert.equal(await restarts(), before, 'the stream was not opened again');
    return { note: `lags of ${late.map((ms) => Math.round(ms / 1000)).join(', ')} s` };
  });
}

export const scenarios = [
  outlived('stepdown', async ({ set }) => {
    await set.stepDown();
    return { bound: 1500 };
  }),

  outlived('kill -9 of the primary', async (field) => {
    const primary = await field.set.primary();
    primary.signal('SIGKILL');
    await primary.child.exited;
    await until(async () => (await field.set.primary()) !== primary, 'another primary', 60_000);
    await field.moreWrites();
    primary.launch();
    await field.set.whole();
  }),

  outlived('SIGSTOP of the primary', async (field, { long }) => {
    const primary = await field.set.primary();
    primary.signal('SIGSTOP');
    try {
      await seconds(long ? 30 : 5);
    } finally {
      primary.signal('SIGCONT');
    }
    await field.set.whole();
  }),

  outlived('connections cut', async (field, { long }) => {
    let cut = 0;
    for (let round = 0; round < (long ? 20 : 4); round += 1) {
      cut += await field.set.proxies.cut({ name: GATEWAY });
      await field.moreWrites(long ? 200 : 10);
    }
    assert.ok(cut > 0, 'the gateway has connections through the proxies');
    return { note: `${cut} connections` };
  }),

  outlived('connections half-open', async (field, { long }) => {
    assert.ok((await field.set.proxies.cut({ name: GATEWAY, halfOpen: true })) > 0);
    await field.moreWrites(long ? 1000 : 30);
  }),

  outlived('network stalled', async (field, { long }) => {
    await field.set.proxies.harm({ stall: 'both' }, { name: GATEWAY });
    await seconds(long ? 12 : 3);
    await field.set.proxies.heal();
  }),

  outlived('latency of 100 ms', async (field, { long }) => {
    await field.set.proxies.harm({ latency: 100 }, { name: GATEWAY });
    await seconds(long ? 10 : 1);
    await field.set.proxies.heal();
  }),

  slowServer(),

  ...[43, 11600, 10107, 91].map((errorCode) => outlived(`failCommand ${errorCode}`, async (field) => {
    await field.set.fail(3, { failCommands: STREAM, errorCode });
    await field.moreWrites();
  })),

  outlived('failCommand closeConnection', async (field) => {
    await field.set.fail(3, { failCommands: STREAM, closeConnection: true });
    await field.moreWrites();
  }),

  outlived('cursor killed', async (field, { long }) => {
    let killed = 0;
    for (let round = 0; round < (long ? 10 : 3); round += 1) {
      killed += await field.set.killCursors();
      await field.moreWrites(long ? 200 : 20);
    }
    assert.ok(killed > 0, 'there were cursors');
    return { note: `${killed} cursors` };
  }),

  outlived('no server while watching again', async (field, { long }) => {
    // The driver's server selection fails after 5 s.
    await field.set.proxies.harm({ refuse: true }, { name: GATEWAY });
    await field.set.proxies.cut({ name: GATEWAY });
    await until(async () => !(await field.health()).store.ok, 'health shows that MongoDB is unreachable', 30_000);
    await seconds(long ? 8 : 1);
    await field.set.proxies.heal();
  }),
];
