// A client that stops reading is cut, and later whole by itself; its neighbours notice nothing. A client behind a wire that
// went dead is reaped.
import assert from 'node:assert/strict';

import { Gateway } from '../e2e/support/gateway.js';
import { member } from '../e2e/support/tokens.js';
import { until } from '../e2e/support/until.js';
import { MongoClient } from './support/packages.js';
import { Reader, assertUncut, closeReaders, newTask, percentile, readers, whole } from './support/readers.js';
import { StallingProxy } from './support/stalling-proxy.js';

const KINDS = { websocket: ['websocket'], polling: ['polling'], upgraded: ['polling', 'websocket'] };

async function withRoom(context, settings, body) {
  const client = await new MongoClient(await context.mongodb()).connect();
  const db = client.db(`slow_${process.pid}_${Date.now()}`);
  const tasks = db.collection('tasks');
  const taskId = 'slow';
  await tasks.insertOne(newTask(taskId));
  const gateway = await Gateway.start({ MONGODB_URI: await context.mongodb(), MONGODB_DB: db.databaseName, ...settings });
  const proxies = [];
  const proxy = async () => {
    proxies.push(await StallingProxy.to(gateway.port));
    return proxies.at(-1);
  };
  let written = 0;
  // The document keeps its size, however much is written.
  const write = async (bytes) => {
    await tasks.updateOne({ _id: taskId }, { $set: { prNumber: written, title: `${Date.now()} ${written} ${'x'.repeat(bytes)}` } });
    written += 1;
  };
  try {
    return await body({ gateway, proxy, taskId, write, written: () => written });
  } finally {
    closeReaders();
    proxies.forEach((one) => one.close());
    await gateway.stop();
    await db.dropDatabase();
    await client.close();
  }
}

/** Connects one client of each kind through a proxy of its own. */
async function victims({ proxy, taskId }, harm, options = {}) {
  const all = [];
  for (const [kind, transports] of Object.entries(KINDS)) {
    const wire = await proxy();
    const reader = new Reader(wire.url, await member(`victim-${kind}`), taskId, { transports, ...options });
    await until(() => reader.states === 1 && reader.socket.io.engine.transport.name === transports.at(-1), `${kind} is there`);
    all.push({ kind, wire, reader });
  }
  all.forEach(({ wire }) => wire[harm]());
  return all;
}

const connections = async (gateway) => (await gateway.health()).websocket.connections;

/** As much as the kernels on the way can hold, and more. */
const FILLS = 900;
/** In the long form: 1 MB/s in 100 events, by the clock. */
const PER_SECOND = 100;
const GROWTH = 0.1;

async function stalled(context, { neighbours, rounds, seconds }) {
  const settings = context.long ? {} : { SLOW_CLIENT_TIMEOUT: '3s', SEND_QUEUE: '256' };
  return withRoom(context, settings, async (room) => {
    const { gateway, taskId, write, written } = room;
    const healthy = await readers(neighbours, gateway.url, taskId, (n) => ({ transports: n % 5 === 4 ? ['polling'] : ['websocket'] }));
    /** The neighbours' p99 meanwhile. */
    const load = async () => {
      healthy.forEach((reader) => (reader.latencies = []));
      const started = Date.now();
      for (let n = 1; n <= (context.long ? seconds * PER_SECOND : FILLS); n += 1) {
        await write(10_000);
        const ahead = started + (n * 1000) / PER_SECOND - Date.now();
        if (context.long && ahead > 0) await new Promise((resolve) => setTimeout(resolve, ahead));
      }
      await until(() => healthy.every((reader) => reader.number === written()), 'the neighbours have everything', 90_000);
      return percentile(healthy.flatMap(({ latencies }) => latencies), 0.99);
    };
    const [quiet, disturbed, cut] = [[], [], []];
    for (let round = 0; round < rounds; round += 1) {
      if (context.long) quiet.push(await load());
      const all = await victims(room, 'stall');
      disturbed.push(await load());
      await until(async () => (await connections(gateway)) === neighbours, 'the stalled ones are gone', 60_000);
      assertUncut(healthy);

      all.forEach(({ wire }) => wire.heal());
      await write(100);
      await whole([...healthy, ...all.map(({ reader }) => reader)], { entries: 0, numbers: written() });
      assertUncut(healthy);
      for (const { kind, reader } of all) {
        // It may have given up an attempt to come back, too, while the wire was stalled.
        assert.ok(reader.disconnects.length >= 1, kind);
        assert.deepEqual([reader.states, reader.faults], [2, []], kind);
        cut.push(`${kind} ${reader.disconnects[0]}`);
        reader.close();
      }
      await until(async () => (await connections(gateway)) === neighbours, 'the stalled ones have left', 60_000);
    }
    const [before, after] = [quiet, disturbed].map((each) => percentile(each, 0.5));
    if (context.long) assert.ok(after <= before * (1 + GROWTH), `the neighbours' p99, round by round: quietly ${quiet} ms, with stalled ones ${disturbed} ms`);
    const growth = context.long ? `; the neighbours' p99, median of ${rounds} rounds: ${before} ms, with stalled ones ${after} ms` : '';
    return { writes: written(), clients: neighbours + cut.length, lost: 0, doubled: 0, outOfOrder: 0, note: `cut: ${[...new Set(cut)].join(', ')}${growth}` };
  });
}

/** The wire swallows everything: no end of a connection arrives anywhere. */
async function swallowed(context) {
  return withRoom(context, { PING_INTERVAL: '1s', PING_TIMEOUT: '1s' }, async (room) => {
    const { gateway, taskId, write, written } = room;
    const healthy = await readers(5, gateway.url, taskId);
    const all = await victims(room, 'swallow');
    await write(100);
    await until(async () => (await connections(gateway)) === healthy.length, 'the gateway gives the lost ones up', 30_000);
    await until(() => all.every(({ reader }) => reader.disconnects.length === 1), 'they notice by themselves', 30_000);
    all.forEach(({ wire }) => wire.heal());
    await write(100);
    await whole([...healthy, ...all.map(({ reader }) => reader)], { entries: 0, numbers: written() });
    assertUncut(healthy);
    return { writes: 2, clients: healthy.length + all.length, lost: 0, doubled: 0, outOfOrder: 0, note: all.map(({ kind, reader }) => `${kind} ${reader.disconnects[0]}`).join(', ') };
  });
}

export const scenarios = [
  { name: 'clients: some stop reading', short: (context) => stalled(context, { neighbours: 15, rounds: 1 }), long: (context) => stalled(context, { neighbours: 100, rounds: 3, seconds: 30 }) },
  { name: 'clients: the wire goes dead', short: swallowed, long: swallowed },
];
