// Faults after which the gateway may have missed changes, so it starts a new epoch and sends a correct state to each client in a room.
import assert from 'node:assert/strict';

import { until } from '../e2e/support/until.js';
import { titleOf } from './support/checker.js';
import { withTestbed } from './support/testbed.js';

const FRESH_TIMEOUT_MS = 2000;
const ONE_LINE = /every room is sent again/g;

const lines = (gateway) => (gateway.output.match(ONE_LINE) ?? []).length;

/** Waits until each room of each client has a newer state than `before`; returns the longest time since `began`. */
async function everybodyAnew({ watchers, gateway }, before, began) {
  const late = () => watchers.flatMap((watcher, n) => watcher.rooms().filter((room) => !(watcher.states.get(room) > before[n].get(room))).map((room) => `${n}: ${room}`));
  await until(() => late().length === 0, () => `no fresh state: ${late().slice(0, 10)}\n${gateway.lastLines()}`, 60_000);
  const first = watchers.flatMap((watcher) => watcher.rooms().map((room) => watcher.stateAt.get(room)));
  return Math.round(Math.max(...first) - began);
}

const statesNow = ({ watchers }) => watchers.map((watcher) => new Map(watcher.states));

/** `fault` makes the change stream lose its history once. In the long form, each client has a new state `within` this many milliseconds. */
function lost(name, fault, within = Infinity) {
  const run = (ctx) => withTestbed(ctx, {}, async (testbed) => {
    await testbed.populate();
    await testbed.write();
    const before = statesNow(testbed);
    const began = performance.now();
    await fault(testbed.set);
    const ms = await everybodyAnew(testbed, before, began);
    await testbed.moreWrites();
    const row = await testbed.judge({ epochs: 1, note: `new states after ${ms} ms` });
    assert.equal(lines(testbed.gateway), 1, `one line in the log\n${testbed.gateway.lastLines()}`);
    for (const watcher of testbed.watchers) assert.deepEqual(watcher.disconnects, [], 'no client was disconnected');
    if (ctx.long) assert.ok(ms <= within, row.note);
    return row;
  });
  return { name, short: run, long: run };
}

/** Kills the cursor, and makes MongoDB refuse to resume `answers` times with `errorCode`. */
const refused = (answers, errorCode) => async (set) => {
  await set.fail(answers, { failCommands: ['aggregate'], errorCode });
  assert.ok((await set.killCursors()) > 0, 'there was a cursor');
};

/** An operator switches the images off. The gateway cannot interpret a change without images, and switches them on again. */
async function imagesOff(ctx) {
  return withTestbed(ctx, {}, async (testbed) => {
    await testbed.populate();
    await testbed.write();
    const { db } = testbed.database;
    const before = statesNow(testbed);
    const began = performance.now();
    await db.command({ collMod: 'tasks', changeStreamPreAndPostImages: { enabled: false } });
    const ms = await everybodyAnew(testbed, before, began);
    const [{ options }] = await db.listCollections({ name: 'tasks' }).toArray();
    assert.deepEqual(options.changeStreamPreAndPostImages, { enabled: true }, 'the images are on again');
    await testbed.moreWrites();
    const epochs = (await testbed.health()).relay.epoch - 1;
    assert.ok(epochs >= 1 && epochs <= 2, `${epochs} epochs`);
    const row = await testbed.judge({ epochs, note: `new states after ${ms} ms` });
    assert.equal(lines(testbed.gateway), epochs, `one log line for each epoch\n${testbed.gateway.lastLines()}`);
    return row;
  });
}

/** After a gap the images are off, and the MongoDB user may not check them. The log reports it, and the gateway continues when it may. */
async function imagesDenied(ctx) {
  return withTestbed(ctx, {}, async (testbed) => {
    await testbed.populate();
    await testbed.write();
    const { db } = testbed.database;
    const before = statesNow(testbed);
    await testbed.set.fail('alwaysOn', { failCommands: ['listCollections'], errorCode: 13 });
    try {
      await db.command({ collMod: 'tasks', changeStreamPreAndPostImages: { enabled: false } });
      await until(() => /lacks the privilege listCollections/.test(testbed.gateway.output), () => `the log names the missing privilege\n${testbed.gateway.lastLines()}`, 30_000);
      assert.equal((await testbed.health()).status, 'degraded');
    } finally {
      await testbed.set.healFailures();
    }
    const began = performance.now();
    const ms = await everybodyAnew(testbed, before, began);
    await testbed.moreWrites();
    const epochs = (await testbed.health()).relay.epoch - 1;
    assert.ok(epochs >= 1 && epochs <= 2, `${epochs} epochs`);
    assert.equal(testbed.gateway.output.match(/lacks the privilege listCollections/g).length, 1, 'logged once');
    return testbed.judge({ epochs, note: `new states after ${ms} ms` });
  });
}

/** History is lost several times in a row. The gateway does not crash, and logs one line for each epoch that health counts. */
async function lostAgainAndAgain(ctx) {
  return withTestbed(ctx, {}, async (testbed) => {
    await testbed.populate();
    await testbed.write();
    const before = statesNow(testbed);
    const times = 4;
    await testbed.set.fail(times, { failCommands: ['getMore'], errorCode: 286 });
    const began = performance.now();
    const ms = await everybodyAnew(testbed, before, began);
    await testbed.moreWrites();
    // One epoch may cover several errors. A new one starts when the gateway has read the stream in between.
    const epochs = (await testbed.health()).relay.epoch - 1;
    assert.ok(epochs >= 1 && epochs <= times, `${epochs} epochs`);
    const row = await testbed.judge({ epochs, note: `new states after ${ms} ms` });
    assert.equal(lines(testbed.gateway), epochs, `one log line for each epoch\n${testbed.gateway.lastLines()}`);
    return row;
  });
}

/** `away` drops or renames the collection, which invalidates the change stream. Then a new collection is created. */
function replaced(name, away) {
  const run = (ctx) => withTestbed(ctx, {}, async (testbed) => {
    await testbed.populate();
    const { tasks, db } = testbed.database;
    const before = statesNow(testbed);
    await away(db, tasks);
    const dashboards = testbed.watchers.filter(({ dashboard }) => dashboard);
    await until(() => testbed.watchers.every((watcher) => watcher.tasks.every((id) => watcher.gone.has(id))),
      () => `all clients learn that their tasks are deleted\n${testbed.gateway.lastLines()}`, 60_000);
    await until(() => dashboards.every((watcher) => watcher.listed.size === 0 && watcher.states.get('dashboard') > before[testbed.watchers.indexOf(watcher)].get('dashboard')), 'empty dashboards', 60_000);

    // The new collection is created like a backend does it, without images. The change feed continues with it by itself.
    const document = (_id) => ({ _id, title: titleOf(0), status: 'received', createdBy: 'boss', orgId: 'acme', createdAt: new Date(), updatedAt: new Date(), events: [] });
    await tasks.insertMany([...testbed.open, ...testbed.hidden].map((id) => ({ ...document(id), ...(testbed.hidden.includes(id) ? { orgId: 'globex' } : {}) })));
    await until(() => dashboards.every((watcher) => testbed.open.every((id) => watcher.listed.has(id))), () => `the new tasks are on every dashboard\n${testbed.gateway.lastLines()}`, 60_000);
    await Promise.all(testbed.watchers.map((watcher) => watcher.join()));
    await until(() => testbed.watchers.every((watcher) => watcher.tasks.every((id) => !watcher.gone.has(id))), 'all clients are in their rooms again', 60_000);
    await testbed.write();
    await testbed.moreWrites();
    const epochs = (await testbed.health()).relay.epoch - 1;
    assert.ok(epochs >= 1 && epochs <= 2, `${epochs} epochs`);
    assert.equal(lines(testbed.gateway), epochs, 'one log line for each epoch');
    return testbed.judge({ epochs });
  });
  return { name, short: run, long: run };
}

export const scenarios = [
  ...[286, 280, 260, 10334].map((errorCode) => lost(`history lost, ${errorCode}`, (set) => set.fail(1, { failCommands: ['getMore'], errorCode }), FRESH_TIMEOUT_MS)),
  lost('token refused', refused(1, 260)),
  // This error says nothing about the resume token. The gateway drops the token after MongoDB has refused it six times.
  lost('token refused without a reason', refused(9, 9)),
  { name: 'images switched off', short: imagesOff, long: imagesOff },
  { name: 'images denied', short: imagesDenied, long: imagesDenied },
  { name: 'history lost again and again', short: lostAgainAndAgain, long: lostAgainAndAgain },
  replaced('collection dropped', (db, tasks) => tasks.drop()),
  replaced('collection renamed', (db, tasks) => tasks.rename('tasks_of_yesterday')),
];
