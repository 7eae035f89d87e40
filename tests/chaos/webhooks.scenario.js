// GitHub's deliveries while the primary changes: each delivery has one effect, and a watching client gets it once.
import assert from 'node:assert/strict';

import { Client } from '../e2e/support/client.js';
import { Gateway } from '../e2e/support/gateway.js';
import { deliver, example, SECRET } from '../e2e/support/github.js';
import { member } from '../e2e/support/tokens.js';
import { settles, until } from '../e2e/support/until.js';

const REPO = 'Codertocat/Hello-World';
const SIZES = { short: { tasks: 8, faults: 1 }, long: { tasks: 40, faults: 4 } };

/** Sends deliveries for each task until `progress.over`, then its merge. Each delivery is repeated under its id until it gets 200. */
async function delivered(gateway, tasks, progress) {
  const one = async (id, payload) => {
    await until(async () => {
      const { status } = await deliver(gateway, 'pull_request', payload, { id });
      if (status !== 200) progress.refused += 1;
      return status === 200;
    }, `${id} is accepted`, 90_000);
    progress.taken += 1;
  };
  const life = async (number) => {
    let second = 0;
    const next = (action, more) => {
      const payload = example('pull_request', 'opened');
      payload.action = action;
      const updated_at = new Date(Date.UTC(2026, 0, 2) + (second += 1) * 1000).toISOString();
      Object.assign(payload.pull_request, { number, title: `Title ${second}`, body: `Fixes #${number}`, updated_at, ...more });
      payload.pull_request.head.ref = `branch-${number}`;
      return one(`${number}-${second}`, payload);
    };
    await next('opened');
    while (!progress.over) await Promise.all([next('edited'), next('labeled'), next('ready_for_review')]);
    await next('closed', { state: 'closed', merged: true, merged_at: '2026-01-02T03:04:05Z' });
    return [number, second];
  };
  return new Map(await Promise.all(tasks.map(life)));
}

async function run(ctx) {
  const { tasks: size, faults } = SIZES[ctx.long ? 'long' : 'short'];
  const set = await ctx.replicaSet();
  await set.waitUntilHealthy();
  const database = await set.database();
  const gateway = await Gateway.start({ ...database.env, GITHUB_WEBHOOK_SECRET: SECRET });
  try {
    const numbers = Array.from({ length: size }, (_, n) => n + 1);
    await database.tasks.insertMany(numbers.map((number) => ({
      _id: `task-${number}`, title: 'A task', status: 'coding', createdBy: 'alice', orgId: 'acme', repo: REPO, githubIssueNumber: number, createdAt: new Date(), events: [],
    })), { writeConcern: { w: 'majority' } });
    const client = await Client.connect(gateway, await member('watcher'));
    for (const number of numbers) await client.join(`task-${number}`);

    const progress = { taken: 0, refused: 0, over: false };
    const more = async () => {
      const before = progress.taken;
      await until(() => progress.taken > before + 5 * size, 'more deliveries are accepted', 60_000);
    };
    const deliveries = delivered(gateway, numbers, progress);
    deliveries.catch(() => {});
    for (let n = 0; n < faults; n += 1) {
      await more();
      if (n % 2 === 0) {
        await set.stepDown();
      } else {
        const primary = await set.primary();
        primary.signal('SIGKILL');
        await primary.child.exited;
        await until(async () => (await set.primary()) !== primary, 'another primary', 60_000);
        primary.launch();
      }
      await more();
      await set.waitUntilHealthy();
    }
    progress.over = true;
    const lives = await deliveries;

    for (const [number, last] of lives) {
      const task = await database.tasks.findOne({ _id: `task-${number}` });
      assert.deepEqual([task.status, task.prState, task.prTitle, task.events.length], ['merged', 'merged', `Title ${last}`, last]);
      await settles(() => {
        const added = client.all('task:event_added').filter(({ taskId }) => taskId === task._id);
        assert.equal(added.length, last, task._id);
        const merged = client.all('task:pr_merged').filter(({ taskId }) => taskId === task._id);
        assert.equal(merged.length, 1, task._id);
      });
    }
    assert.equal(await database.db.collection('tasks_github_deliveries').countDocuments(), progress.taken);
    client.assertInOrder();
    assert.deepEqual(client.disconnects, []);
    return { writes: progress.taken, clients: 1, lost: 0, doubled: 0, note: `${faults} faults, ${progress.refused} answers were not 200` };
  } finally {
    await gateway.stop();
    await database.close();
  }
}

export const scenarios = [{ name: 'webhooks while the primary changes', short: run, long: run }];
