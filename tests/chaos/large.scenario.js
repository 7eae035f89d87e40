// Documents so large that a change event with both images exceeds MongoDB's limit of 16 MB.
import assert from 'node:assert/strict';

import { until } from '../e2e/support/until.js';
import { titleOf } from './support/checker.js';
import { withTestbed } from './support/testbed.js';

const NINE_MEGABYTES = 'x'.repeat(9 * 1024 * 1024);

/** Changes one large document among the changes of the others. Clients do not see the large field. */
async function largeDocument(ctx) {
  return withTestbed(ctx, {}, async (testbed) => {
    await testbed.populate();
    await testbed.write();
    const { tasks } = testbed.database;
    const watchers = testbed.watchers.filter(({ dashboard }) => dashboard);
    for (const watcher of watchers) watcher.allowed = new Set([...watcher.allowed, 'large']);
    const large = { _id: 'large', title: titleOf(0), status: 'received', createdBy: 'boss', orgId: 'acme', createdAt: new Date(), updatedAt: new Date(), events: [], llmRaw: NINE_MEGABYTES };
    await tasks.insertOne(large);
    const times = ctx.long ? 20 : 3;
    for (let n = 1; n <= times; n += 1) {
      await tasks.updateOne({ _id: 'large' }, { $set: { title: titleOf(n) }, $push: { events: { eventType: 'step', payload: { n, id: `large/${n}` }, createdAt: new Date() } } });
      await testbed.moreWrites(10);
    }
    await until(() => watchers.every((watcher) => watcher.listed.get('large')?.last === times), () => `the last title on every dashboard\n${testbed.gateway.lastLines()}`, 60_000);
    const epochs = (await testbed.health()).relay.epoch - 1;
    assert.ok(epochs <= times, `${epochs} epochs for ${times} changes`);
    return testbed.judge({ epochs, note: `${times} changes of a document of 9 MB` });
  });
}

export const scenarios = [{ name: 'large document', short: largeDocument, long: largeDocument }];
