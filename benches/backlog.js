// Measures how long it takes to read a backlog of changes to one task with a long timeline, after the connection to MongoDB was cut. It
// compares taskcast, until a client has the last change, with the official Node driver's change stream, with the same images and pipeline.
//   node benches/backlog.js [entries,entries,…] [changes,changes,…] [repetitions for up to 1000 changes]
// Both read the same backlog from the same server, one after the other. 20,000 entries and 5,000 changes write about 10 GB.
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { Proxies } from '../tests/chaos/support/proxy.js';
import { Client, closeClients } from '../tests/e2e/support/client.js';
import { Gateway } from '../tests/e2e/support/gateway.js';
import { scrape } from '../tests/e2e/support/metrics.js';
import { freshDatabase, startMongod } from '../tests/e2e/support/mongo.js';
import { freePort } from '../tests/e2e/support/ports.js';
import { start } from '../tests/e2e/support/processes.js';
import { member } from '../tests/e2e/support/tokens.js';
import { until } from '../tests/e2e/support/until.js';

const numbers = (text, otherwise) => (text ?? otherwise).split(',').map(Number);
const sizes = numbers(process.argv[2], '10,3000,20000');
const backlogs = numbers(process.argv[3], '1,100,5000');
const repetitions = Number(process.argv[4] ?? 3);
const HOUR = 3_600_000;
const _id = 'task';

const mongod = await startMongod({ oplogMegabytes: 2000 });
process.env.TASKCAST_E2E_MONGODB_URI = mongod.uri;
const mongodPort = Number(new URL(mongod.uri).port);

/** A proxied connection to MongoDB that can be cut. */
async function proxiedConnection() {
  const port = await freePort();
  const proxies = await Proxies.start();
  await proxies.open(port, mongodPort);
  return {
    uri: `mongodb://127.0.0.1:${port}/?directConnection=true`,
    async cut() {
      await proxies.harm({ refuse: true });
      await proxies.cut();
    },
    heal: () => proxies.heal(),
    stop: () => proxies.stop(),
  };
}

/** The stages after $changeStream in the pipeline of taskcast's cursor; null while there is no such cursor. */
async function pipelineOf(database) {
  const cursors = await database.client.db('admin').aggregate([
    { $currentOp: { idleCursors: true, allUsers: true } }, { $match: { ns: `${database.name}.tasks`, appName: 'taskcast' } },
  ]).toArray();
  const [, ...stages] = cursors.map(({ cursor, command }) => cursor?.originatingCommand?.pipeline ?? command?.pipeline).find((pipeline) => pipeline?.[0]?.$changeStream) ?? [];
  return stages.length > 0 ? stages : null;
}

/** Starts the official driver's change stream in its own process. `said` collects each title that ends with "the end". */
async function driver(uri, name, pipeline) {
  const child = start(process.execPath, [fileURLToPath(new URL('backlog-driver.js', import.meta.url))], {
    env: { ...process.env, DRIVER: JSON.stringify({ uri, name, pipeline }) }, stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  await until(() => lines.includes('ready'), 'the driver watches', 60_000);
  return { lines, stop: async () => (child.kill('SIGKILL'), child.exited) };
}

async function cell(entries, changes) {
  const database = await freshDatabase();
  const [ours, theirs] = [await proxiedConnection(), await proxiedConnection()];
  const gateway = await Gateway.start({ ...database.env, MONGODB_URI: ours.uri });
  const event = (n) => ({ eventType: 'step', payload: { n, text: 'what an agent says of its work, some eighty characters of it' }, createdAt: new Date() });
  await database.tasks.insertOne({ _id, title: 'begin', status: 'coding', createdBy: 'boss', orgId: 'acme', createdAt: new Date(), updatedAt: new Date(), events: Array.from({ length: entries }, (_, n) => event(n)) });
  const client = await Client.connect(gateway, await member('user'), { keep: false });
  await client.join(_id);
  const titles = [];
  client.socket.on('task:updated', ({ changed: { title } }) => title && titles.push(title));
  const pipeline = await until(() => pipelineOf(database), 'the pipeline of the change stream', 60_000);
  const peer = await driver(theirs.uri, database.name, pipeline);

  const rounds = changes > 1000 ? 1 : repetitions;
  const times = { taskcast: [], driver: [] };
  let restarts = 0;
  for (let round = 0; round < rounds; round += 1) {
    const end = `${round} the end`;
    await Promise.all([ours.cut(), theirs.cut()]);
    for (let n = 1; n < changes; n += 1) await database.tasks.updateOne({ _id }, { $set: { updatedAt: new Date() }, $push: { events: event(n) } }, { writeConcern: { w: 1 } });
    await database.tasks.updateOne({ _id }, { $set: { title: end, updatedAt: new Date() } });
    await until(async () => (await scrape(gateway.url)).get('taskcast_stream_restarts_total') === round + 1, 'the gateway has noticed the cut', 60_000);
    const contenders = [
      ['taskcast', ours, () => titles.includes(end)],
      ['driver', theirs, () => peer.lines.includes(end)],
    ];
    for (const [name, connection, hasRead] of round % 2 === 0 ? contenders : contenders.reverse()) {
      const begun = performance.now();
      await connection.heal();
      await until(hasRead, () => `${name} has read the backlog`, HOUR);
      times[name].push(performance.now() - begun);
      console.log(`${entries} entries, ${changes} changes, round ${round + 1}: ${name} ${Math.round(times[name].at(-1))} ms`);
    }
    restarts = (await scrape(gateway.url)).get('taskcast_stream_restarts_total') - round - 1;
  }
  closeClients();
  await peer.stop();
  await gateway.stop();
  await Promise.all([ours.stop(), theirs.stop()]);
  await database.db.dropDatabase();
  await database.close();
  const median = (values) => Math.round(values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]);
  const [taskcast, official] = [median(times.taskcast), median(times.driver)];
  return { entries, changes, rounds, 'taskcast ms': taskcast, 'driver ms': official, ratio: Math.round((taskcast / official) * 100) / 100, 'opened again': restarts };
}

const rows = [];
try {
  for (const entries of sizes) {
    for (const changes of backlogs) {
      rows.push(await cell(entries, changes));
      console.log(JSON.stringify(rows.at(-1)));
    }
  }
} finally {
  await mongod.stop();
}
console.table(rows);
process.exit(rows.every((row) => row.ratio <= 1.2 && row['opened again'] === 0) ? 0 : 1);
