// A writer process: it sends one write after the other with the official driver. Each write has the next number of its task.
// It ends after a line "stop" on stdin. It prints the number of writes after every STEP writes, and {writes, failures, ms} at the end.
import { createInterface } from 'node:readline';

import { titleOf } from './checker.js';
import { MongoClient } from './packages.js';

const STEP = 10;
const { uri, db, ids, pause, first = 1 } = JSON.parse(process.env.WRITER);
const STATUSES = ['analyzing', 'dispatched', 'coding', 'pr_open', 'on_hold'];

let stopped = false;
createInterface({ input: process.stdin }).on('line', () => (stopped = true)).on('close', () => (stopped = true));

// Only the primary acknowledges a write. A write that it has not replicated before it dies is rolled back, and no client may receive it.
const client = await new MongoClient(uri, { appName: 'chaos-writer', writeConcern: { w: 1 } }).connect();
const tasks = client.db(db).collection('tasks');
const started = Date.now();
let writes = 0;
let failures = 0;
const numbers = new Map(ids.map((id) => [id, first]));
while (!stopped) {
  const _id = ids[writes % ids.length];
  const n = numbers.get(_id);
  numbers.set(_id, n + 1);
  const at = new Date();
  try {
    await tasks.updateOne({ _id }, {
      $set: { title: titleOf(n), status: STATUSES[n % STATUSES.length], updatedAt: at },
      $push: { events: { eventType: 'step', payload: { n, id: `${_id}/${n}` }, createdAt: at } },
    });
    writes += 1;
  } catch {
    failures += 1;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  if (writes % STEP === 0) process.stdout.write(`${writes}\n`);
  if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
}
// Unread output is lost when the process exits.
const result = JSON.stringify({ writes, failures, ms: Date.now() - started });
await new Promise((resolve) => process.stdout.write(`${result}\n`, resolve));
await client.close();
process.exit(0);
