// 20,000 events in one room, as fast as MongoDB accepts the writes. Each client that reads gets all of them in order and stays connected.
import assert from 'node:assert/strict';

import { Gateway } from '../e2e/support/gateway.js';
import { until } from '../e2e/support/until.js';
import { MongoClient } from './support/packages.js';
import { plainBurst } from './support/plain-emit.js';
import { Reader, assertUncut, closeReaders, entries, newTask, readers, untilComplete } from './support/readers.js';
import { StallingProxy } from './support/stalling-proxy.js';
import { member } from '../e2e/support/tokens.js';

const NUMBERS = 4000;
const PUSHES = 16;
const PER_PUSH = 1000;
const EVENTS = NUMBERS + PUSHES * PER_PUSH;

async function burst(context, { websockets, pollers, upgraders }) {
  const uri = await context.mongodb();
  const client = await new MongoClient(uri).connect();
  const db = client.db(`burst_${process.pid}`);
  const tasks = db.collection('tasks');
  const env = { MONGODB_URI: uri, MONGODB_DB: db.databaseName };
  const taskId = 'burst';
  await tasks.insertOne(newTask(taskId));
  const gateway = await Gateway.start(env);
  // The negative control is a client that reads nothing. It must miss events, or the test cannot detect loss.
  const small = await Gateway.start({ ...env, SEND_QUEUE: '64' });
  const proxy = await StallingProxy.to(small.port);
  try {
    const transports = (n) => (n < websockets ? ['websocket'] : n < websockets + pollers ? ['polling'] : ['polling', 'websocket']);
    const healthy = await readers(websockets + pollers + upgraders, gateway.url, taskId, (n) => ({ transports: transports(n) }));
    const deaf = new Reader(proxy.url, await member('deaf'), taskId, { reconnection: false });
    await until(() => deaf.states === 1, 'the control has its state');
    proxy.stall();

    const started = Date.now();
    await tasks.bulkWrite(Array.from({ length: NUMBERS }, (_, n) => ({ updateOne: { filter: { _id: taskId }, update: { $set: { prNumber: n } } } })));
    for (let n = 0; n < PUSHES; n += 1) {
      await tasks.updateOne({ _id: taskId }, { $push: { events: { $each: entries(n * PER_PUSH, PER_PUSH, 100) } } });
    }
    const writtenMs = Date.now() - started;
    await untilComplete(healthy, { entries: PUSHES * PER_PUSH, numbers: NUMBERS });
    const ms = Date.now() - started;
    assertUncut(healthy);

    await until(async () => (await small.health()).websocket.connections === 0, 'the control is disconnected', 60_000);
    proxy.heal();
    await until(() => deaf.disconnects.length === 1, 'the control notices that it is disconnected');
    assert.deepEqual(deaf.faults, [], 'the events before the disconnect came in order');
    assert.ok(deaf.number + deaf.next < EVENTS, `the control must miss events: it got ${deaf.number} numbers and ${deaf.next} timeline entries`);
    // The second control is a plain emit loop. Its clients read everything, and must still lose events.
    const plain = await plainBurst(websockets, EVENTS);
    assert.ok(Math.min(...plain) < EVENTS, `the plain gateway must lose events: ${plain}`);
    return {
      writes: NUMBERS + PUSHES, clients: healthy.length, lost: 0, doubled: 0, outOfOrder: 0,
      rate: Math.round((EVENTS * 1000) / ms), note: `written in ${writtenMs} ms, read in ${ms} ms; deaf client got ${deaf.number + deaf.next}; plain emits reached ${Math.min(...plain)} to ${Math.max(...plain)}`,
    };
  } finally {
    closeReaders();
    proxy.close();
    await gateway.stop();
    await small.stop();
    await db.dropDatabase();
    await client.close();
  }
}

export const scenarios = [{
  name: 'clients: burst of 20,000 events into one room',
  short: (context) => burst(context, { websockets: 8, pollers: 3, upgraders: 1 }),
  long: (context) => burst(context, { websockets: 60, pollers: 20, upgraders: 20 }),
}];
