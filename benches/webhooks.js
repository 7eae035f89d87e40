// Measures the time from GitHub's POST to the client's task:pr_opened, beside MongoDB's own majority commits at the same time.
//   node benches/webhooks.js [seconds] [webhooks per second]
import { setTimeout as sleep } from 'node:timers/promises';

import { Client } from '../tests/e2e/support/client.js';
import { Gateway } from '../tests/e2e/support/gateway.js';
import { deliver, example, SECRET } from '../tests/e2e/support/github.js';
import { freshDatabase } from '../tests/e2e/support/mongo.js';
import { member } from '../tests/e2e/support/tokens.js';
import { until } from '../tests/e2e/support/until.js';

const seconds = Number(process.argv[2] ?? 20);
const rate = Number(process.argv[3] ?? 50);
const total = seconds * rate;
const REPO = 'Codertocat/Hello-World';
/** Other tasks of the repository, so that the lookup of one has work to do. */
const OTHERS = 10_000;

const at = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))].toFixed(1);
function printPercentiles(name, values) {
  const sorted = values.toSorted((a, b) => a - b);
  console.log(`${name.padEnd(44)} n ${String(sorted.length).padStart(6)}   p50 ${at(sorted, 0.5).padStart(7)} ms   p99 ${at(sorted, 0.99).padStart(7)} ms   max ${at(sorted, 1).padStart(7)} ms`);
  return Number(at(sorted, 0.99));
}

const database = await freshDatabase();
const gateway = await Gateway.start({ ...database.env, GITHUB_WEBHOOK_SECRET: SECRET, MAX_ROOMS_PER_SOCKET: '100000', JOIN_RATE_PER_SECOND: '100000' });
try {
  const task = (n) => ({ _id: `task-${n}`, title: `Task ${n}`, status: 'coding', createdBy: 'alice', orgId: 'acme', repo: REPO, githubIssueNumber: n, createdAt: new Date(), updatedAt: new Date(), events: [] });
  await database.tasks.insertMany(Array.from({ length: total + OTHERS }, (_, n) => task(n + 1)));
  const client = await Client.connect(gateway, await member('alice'), { keep: false });
  for (let n = 1; n <= total; n += 1) await client.join(`task-${n}`);
  const sent = new Map();
  const latencies = [];
  client.socket.on('task:pr_opened', ({ taskId, prUrl }) => {
    if (prUrl) latencies.push(performance.now() - sent.get(taskId));
  });

  const answered = [];
  const webhook = async (n) => {
    const payload = example('pull_request', 'opened');
    Object.assign(payload.pull_request, { number: n, body: `Fixes #${n}`, html_url: `https://github.com/${REPO}/pull/${n}` });
    payload.pull_request.head.ref = `branch-${n}`;
    const start = performance.now();
    sent.set(`task-${n}`, start);
    const { status } = await deliver(gateway, 'pull_request', payload);
    if (status !== 200) throw new Error(`answered ${status}`);
    answered.push(performance.now() - start);
  };

  // The official driver changes one field of one document, on the same server at the same time.
  const commits = [];
  let stopped = false;
  const own = database.db.collection('commits', { writeConcern: { w: 'majority' } });
  await own.insertOne({ _id: 1 });
  const measuring = (async () => {
    while (!stopped) {
      const start = performance.now();
      await own.updateOne({ _id: 1 }, { $inc: { n: 1 } });
      commits.push(performance.now() - start);
      await sleep(50);
    }
  })();

  const begun = performance.now();
  const running = [];
  for (let n = 1; n <= total; n += 1) {
    await sleep(Math.max(0, begun + ((n - 1) * 1000) / rate - performance.now()));
    running.push(webhook(n));
  }
  await Promise.all(running);
  await until(() => latencies.length === total, () => `${latencies.length} of ${total} events`, 30_000);
  stopped = true;
  await measuring;

  console.log(`${rate} webhooks a second for ${seconds} s, ${total + OTHERS} tasks, ${gateway.child.spawnargs.find((argument) => argument.endsWith('taskcast'))}`);
  const commit = printPercentiles("MongoDB's own majority commit", commits);
  printPercentiles('POST to answer', answered);
  const event = printPercentiles("POST to the client's task:pr_opened", latencies);
  console.log(`p99 minus p99 of MongoDB's commit: ${(event - commit).toFixed(1)} ms`);
} finally {
  await gateway.stop();
  await database.close();
}
process.exit(0);
