// The writer, a program of its own: official driver, one write after the other, each with a number of its task's own.
// stdin: a line "stop". stdout: the number of writes so far, one line per STEP; at the end {writes, failures, ms}.
import { createInterface } from 'node:readline';

import { titleOf } from './checker.js';
import { MongoClient } from './packages.js';

const STEP = 10;
const { uri, db, ids, pause, first = 1 } = JSON.parse(process.env.WRITER);
const STATUSES = ['analyzing', 'dispatched', 'coding', 'pr_open', 'on_hold'];

let stopped = false;
createInterface({ input: process.stdin }).on('line', () => (stopped = true)).on('close', () => (stopped = true));

// Acknowledged by the primary alone: what it had not replicated when it died never was, and nobody may have been told.
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
// What is not read yet is lost when a process exits.
const result = JSON.stringify({ writes, failures, ms: Date.now() - started });
await new Promise((resolve) => process.stdout.write(`${result}\n`, resolve));
await client.close();
process.exit(0);
