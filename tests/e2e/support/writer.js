// A writer process: it sends one write after the other with the official driver, as fast as MongoDB answers.
// It ends after a line "stop" on stdin. It prints the number of writes after every STEP writes, and {writes, ms} at the end.
import { createInterface } from 'node:readline';

import { MongoClient } from 'mongodb';

const STEP = 10;
const { uri, db, ids, kind, minWrites, maxWrites, seed } = JSON.parse(process.env.WRITER);
const STATUSES = ['analyzing', 'needs_clarification', 'dispatched', 'coding', 'pr_open', 'merged', 'failed', 'on_hold'];

let state = seed;
/** A small random generator with a seed, so that a failure can be repeated. */
function random(n) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
}
const pick = (items) => items[random(items.length)];

let stopped = false;
createInterface({ input: process.stdin }).on('line', () => (stopped = true)).on('close', () => (stopped = true));

const client = await new MongoClient(uri, { writeConcern: { w: 1 } }).connect();
const tasks = client.db(db).collection('tasks');
const updatedAt = () => new Date();
let entries = 0;
const entry = () => ({ eventType: 'step', payload: { n: (entries += 1) }, createdAt: new Date() });

function change(n) {
  switch (random(8)) {
    case 0: return { $set: { updatedAt: updatedAt() }, $push: { events: entry() } };
    case 1: return { $set: { status: pick(STATUSES), updatedAt: updatedAt() }, ...(random(4) === 0 ? { $push: { events: { $each: [entry(), entry()] } } } : {}) };
    case 2: return { $set: { prNumber: n, prUrl: `https://x/${n}`, updatedAt: updatedAt() } };
    case 3: return { $set: { title: `title ${n}`, updatedAt: updatedAt() } };
    case 4: return { $set: { updatedAt: updatedAt() }, $unset: { prUrl: '' } };
    case 5: return { $set: { clarificationAnswers: [`answer ${n}`], updatedAt: updatedAt() } };
    default: return { $set: { status: pick(STATUSES), githubBranch: `branch-${random(3)}`, updatedAt: updatedAt() } };
  }
}

async function writeTask(n) {
  await tasks.updateOne({ _id: pick(ids) }, change(n));
}

/** Creates and deletes tasks, and changes their owners, organisations and privacy. */
async function writeMany(n) {
  const id = pick(ids);
  switch (random(10)) {
    case 0: return tasks.deleteOne({ _id: id });
    case 1: return tasks.updateOne({ _id: id }, { $set: { isPrivate: random(2) === 0, updatedAt: updatedAt() } });
    case 2: return tasks.updateOne({ _id: id }, { $set: { createdBy: `user-${random(200)}`, updatedAt: updatedAt() } });
    case 3: return tasks.updateOne({ _id: id }, { $set: { orgId: pick(['acme', 'globex']), updatedAt: updatedAt() } });
    case 4: case 5:
      return tasks.updateOne({ _id: id }, {
        $set: { title: `made ${n}`, status: 'received', updatedAt: updatedAt() },
        $setOnInsert: { createdBy: `user-${random(200)}`, orgId: pick(['acme', 'globex']), isPrivate: random(3) === 0, createdAt: new Date(), events: [] },
      }, { upsert: true });
    default: return tasks.updateOne({ _id: id }, change(n));
  }
}

const write = kind === 'task' ? writeTask : writeMany;
const started = Date.now();
let writes = 0;
while (writes < maxWrites && (writes < minWrites || !stopped)) {
  await write(writes);
  writes += 1;
  if (writes % STEP === 0) process.stdout.write(`${writes}\n`);
}
// The parent may read slowly, and unread output is lost when the process exits.
const result = JSON.stringify({ writes, ms: Date.now() - started });
await new Promise((resolve) => process.stdout.write(`${result}\n`, resolve));
await client.close();
process.exit(0);
