// The gateway disconnects a client that stops reading. The client recovers by itself later, and other clients notice nothing. The gateway
// also removes a client whose network is dead.
import assert from 'node:assert/strict';

import { Gateway } from '../e2e/support/gateway.js';
import { member } from '../e2e/support/tokens.js';
import { until } from '../e2e/support/until.js';
import { MongoClient } from './support/packages.js';
import { Reader, assertUncut, closeReaders, newTask, percentile, readers, untilComplete } from './support/readers.js';
import { StallingProxy } from './support/stalling-proxy.js';

const KINDS = { websocket: ['websocket'], polling: ['polling'], upgraded: ['polling', 'websocket'] };
/** A client of `/ws` alone does not notice that its network is dead. */
const ALL_KINDS = { ...KINDS, plain: ['ws'] };

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
  // Each write replaces the same fields, so the document keeps its size.
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

/** Connects one client of each kind, each through its own proxy. */
async function victims({ proxy, taskId }, harm, kinds = KINDS) {
  const all = [];
  for (const [kind, transports] of Object.entries(kinds)) {
    const wire = await proxy();
    const reader = new Reader(wire.url, await member(`victim-${kind}`), taskId, { transports });
    await until(() => reader.states === 1 && reader.socket.io.engine.transport.name === transports.at(-1), `${kind} is connected`);
    all.push({ kind, wire, reader });
  }
  all.forEach(({ wire }) => wire[harm]());
  return all;
}

const connections = async (gateway) => (await gateway.health()).websocket.connections;

/** This many writes are more than the kernels' buffers can hold. */
const FILLS = 900;
/** The long form writes 100 events of 10 kB a second, on a fixed schedule. */
const PER_SECOND = 100;
const GROWTH = 0.1;

async function stalled(context, { neighbours, rounds, seconds }) {
  const settings = context.long ? {} : { SLOW_CLIENT_TIMEOUT: '3s', SEND_QUEUE: '256' };
  return withRoom(context, settings, async (room) => {
    const { gateway, taskId, write, written } = room;
    const healthy = await readers(neighbours, gateway.url, taskId, (n) => ({ transports: [['websocket'], ['websocket'], ['websocket'], ['ws'], ['polling']][n % 5] }));
    /** Writes the load; returns the p99 latency of the other clients. */
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
      const all = await victims(room, 'stall', ALL_KINDS);
      disturbed.push(await load());
      await until(async () => (await connections(gateway)) === neighbours, 'the stalled clients are disconnected', 60_000);
      assertUncut(healthy);

      all.forEach(({ wire }) => wire.heal());
      await write(100);
      await untilComplete([...healthy, ...all.map(({ reader }) => reader)], { entries: 0, numbers: written() });
      assertUncut(healthy);
      for (const { kind, reader } of all) {
        // The client may also have failed to reconnect while its connection was stalled.
        assert.ok(reader.disconnects.length >= 1, kind);
        assert.deepEqual([reader.states, reader.faults], [2, []], kind);
        cut.push(`${kind} ${reader.disconnects[0]}`);
        reader.close();
      }
      await until(async () => (await connections(gateway)) === neighbours, 'the closed clients are disconnected', 60_000);
    }
    const [before, after] = [quiet, disturbed].map((each) => percentile(each, 0.5));
    if (context.long) assert.ok(after <= before * (1 + GROWTH), `the other clients' p99 of each round: ${quiet} ms without stalled clients, ${disturbed} ms with them`);
    const growth = context.long ? `; p99 of the other clients, median of ${rounds} rounds: ${before} ms, with stalled clients ${after} ms` : '';
    return { writes: written(), clients: neighbours + cut.length, lost: 0, doubled: 0, outOfOrder: 0, note: `disconnected: ${[...new Set(cut)].join(', ')}${growth}` };
  });
}

/** The network drops everything, so neither side learns that a connection has ended. */
async function swallowed(context) {
  return withRoom(context, { PING_INTERVAL: '1s', PING_TIMEOUT: '1s' }, async (room) => {
    const { gateway, taskId, write, written } = room;
    const healthy = await readers(5, gateway.url, taskId);
    const all = await victims(room, 'swallow');
    await write(100);
    await until(async () => (await connections(gateway)) === healthy.length, 'the gateway disconnects the unreachable clients', 30_000);
    await until(() => all.every(({ reader }) => reader.disconnects.length === 1), 'the clients notice by themselves', 30_000);
    all.forEach(({ wire }) => wire.heal());
    await write(100);
    await untilComplete([...healthy, ...all.map(({ reader }) => reader)], { entries: 0, numbers: written() });
    assertUncut(healthy);
    return { writes: 2, clients: healthy.length + all.length, lost: 0, doubled: 0, outOfOrder: 0, note: all.map(({ kind, reader }) => `${kind} ${reader.disconnects[0]}`).join(', ') };
  });
}

export const scenarios = [
  { name: 'clients: some stop reading', short: (context) => stalled(context, { neighbours: 15, rounds: 1 }), long: (context) => stalled(context, { neighbours: 100, rounds: 3, seconds: 30 }) },
  { name: 'clients: the wire goes dead', short: swallowed, long: swallowed },
];
