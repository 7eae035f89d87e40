// Measures the cost of one more node for MongoDB (a change stream with images) and for the node itself (changes that none of its clients
// sees), and the deliveries that it adds.
//   node benches/nodes.js [seconds of each round]
// All processes share the cores of one machine. Therefore the table has CPU times beside the rates; more machines would scale with those.
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { Client, closeClients } from '../tests/e2e/support/client.js';
import { Gateway } from '../tests/e2e/support/gateway.js';
import { freshDatabase, startMongod } from '../tests/e2e/support/mongo.js';
import { start } from '../tests/e2e/support/processes.js';
import { Redis } from '../tests/e2e/support/redis.js';
import { member } from '../tests/e2e/support/tokens.js';
import { until } from '../tests/e2e/support/until.js';

const seconds = Number(process.argv[2] ?? 10);
const TASKS = 200;
const CLIENTS = 60;
/** The unit of user and system time in /proc. */
const TICK_MS = 10;

const cpu = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
};
const micros = (ms, count) => (count > 0 ? Math.round((ms * 1000) / count) : 0);

const mongod = await startMongod();
process.env.TASKCAST_E2E_MONGODB_URI = mongod.uri;
const redis = await Redis.start();

/** Writes without a pause for `seconds`; returns the number of writes. */
async function writes(database, ids, writers) {
  const one = async (_, n) => {
    const child = start(process.execPath, [fileURLToPath(new URL('../tests/chaos/support/writer.js', import.meta.url))], {
      env: { ...process.env, WRITER: JSON.stringify({ uri: database.uri, db: database.name, ids: ids.filter((_, index) => index % writers === n), pause: 0 }) }, stdio: ['pipe', 'pipe', 'inherit'],
    });
    let last;
    createInterface({ input: child.stdout }).on('line', (line) => (last = JSON.parse(line)));
    await until(() => last !== undefined, 'the writer writes');
    await sleep(seconds * 1000);
    child.stdin.end('stop\n');
    await child.exited;
    return last.writes;
  };
  return (await Promise.all(Array.from({ length: writers }, one))).reduce((sum, count) => sum + count, 0);
}

/** Measures one row: `count` nodes and `clients` clients, spread over the nodes. Each client is in a tenth of the rooms. */
async function round(count, writers, clients) {
  const database = await freshDatabase();
  const ids = Array.from({ length: TASKS }, (_, n) => `task-${n}`);
  await database.db.createCollection('tasks', { changeStreamPreAndPostImages: { enabled: true } });
  await database.tasks.insertMany(ids.map((_id) => ({ _id, title: '#0', status: 'received', createdBy: 'boss', orgId: 'acme', createdAt: new Date(), updatedAt: new Date(), events: [] })));
  const nodes = await Promise.all(Array.from({ length: count }, () => Gateway.start({ ...database.env, REDIS_URL: redis.url, JOIN_RATE_PER_SECOND: '100000' })));
  let delivered = 0;
  for (let n = 0; n < clients; n += 1) {
    const client = await Client.connect(nodes[n % count], await member(`user-${n}`), { keep: false });
    client.socket.offAny();
    const taskIds = ids.filter((_, index) => index % 10 === n % 10);
    await client.ask('resync_requested', { taskIds });
    client.socket.io.engine.on('packet', () => (delivered += 1));
  }
  const pids = nodes.map(({ child }) => child.pid);
  const before = { mongod: cpu(mongod.pid()), nodes: pids.map(cpu) };
  const begun = performance.now();
  delivered = 0;
  const written = await writes(database, ids, writers);
  const elapsed = (performance.now() - begun) / 1000;
  await until(async () => {
    const positions = await Promise.all(nodes.map(async (node) => (await node.health()).relay));
    return positions.every(({ lagMs }) => lagMs === 0);
  }, 'all nodes have sent everything', 60_000);
  const nodeMs = pids.reduce((sum, pid, n) => sum + cpu(pid) - before.nodes[n], 0);
  const row = {
    nodes: count, writers, clients, 'writes/s': Math.round(written / elapsed), 'mongod µs/write': micros(cpu(mongod.pid()) - before.mongod, written),
    'node µs/change': micros(nodeMs / Math.max(1, count), written), 'deliveries/s': Math.round(delivered / elapsed), 'node µs/delivery': micros(nodeMs, delivered),
  };
  closeClients();
  for (const node of nodes) await node.stop();
  await database.close();
  return row;
}

const rows = [];
try {
  for (const writers of [1, 4]) for (const count of [0, 1, 2, 3, 4, 5]) rows.push(await round(count, writers, 0));
  for (const count of [1, 2, 3]) rows.push(await round(count, 2, CLIENTS));
} finally {
  await redis.stop();
  await mongod.stop();
}
console.log(`${availableParallelism()} cores for MongoDB, Redis, nodes, writers and clients together; ${seconds} s each`);
console.table(rows);
process.exit(0);
