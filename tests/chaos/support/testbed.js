// The environment of a fault: a gateway with the replica set, clients in rooms, an independent writer, and the comparison at the end.
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { Gateway } from '../../e2e/support/gateway.js';
import { freePort } from '../../e2e/support/ports.js';
import { start } from '../../e2e/support/processes.js';
import { member } from '../../e2e/support/tokens.js';
import { until } from '../../e2e/support/until.js';
import { nothingWrong, titleOf } from './checker.js';
import { MongoClient } from './packages.js';
import { Silence, Watcher } from './watcher.js';

const SIZES = {
  short: { clients: 12, tasks: 6, roomsEach: 2, dashboards: 3, writes: 60, pause: 4 },
  long: { clients: 200, tasks: 100, roomsEach: 2, dashboards: 8, writes: 2000, pause: 0 },
};
const CONNECT_BATCH_SIZE = 20;
const ARRIVAL_TIMEOUT_MS = 60_000;

export class Testbed {
  watchers = [];
  silence = new Silence();

  /** `launch` says whether to start the gateway. `under` is a command that runs it. Other options override the size. */
  static async start(ctx, { env = {}, under, launch = true, ...size } = {}) {
    const testbed = new Testbed();
    await testbed.prepare(ctx, { ...SIZES[ctx.long ? 'long' : 'short'], ...size });
    testbed.gateway = new Gateway(await freePort(), { ...testbed.database.env, ...env }, under);
    if (launch) await testbed.gateway.launch();
    return testbed;
  }

  /** Prepares everything except the gateway. */
  async prepare(ctx, size) {
    this.ctx = ctx;
    this.size = size;
    this.set = await ctx.replicaSet();
    await this.set.waitUntilHealthy();
    this.database = await this.set.database();
    await this.createTasks();
  }

  /** Connection options of the n-th client, in addition to those of its kind. */
  optionsOf() {
    return {};
  }

  /** The kind of the n-th client: how it resyncs after a reconnect. */
  kindOf(n) {
    return n === 0 ? 'existing' : ['since', 'states'][n % 2];
  }

  /** Records when the n-th client receives something, to measure silence. */
  recorder() {
    return this.silence;
  }

  /** Creates tasks that all members of acme see, two private ones, and two of another organisation. */
  async createTasks() {
    const { db, tasks } = this.database;
    await db.createCollection('tasks', { changeStreamPreAndPostImages: { enabled: true } });
    const document = (_id, more = {}) => ({
      _id, title: titleOf(0), status: 'received', createdBy: 'boss', creatorName: 'Boss', orgId: 'acme', isPrivate: false,
      createdAt: new Date(), updatedAt: new Date(), events: [], ...more,
    });
    this.open = Array.from({ length: this.size.tasks }, (_, n) => `open-${n}`);
    this.hidden = ['private-0', 'private-1', 'foreign-0', 'foreign-1'];
    await tasks.insertMany([
      ...this.open.map((id) => document(id)),
      ...this.hidden.map((id) => document(id, id.startsWith('private') ? { isPrivate: true } : { orgId: 'globex' })),
    ], { writeConcern: { w: 'majority' } });
  }

  /** Connects the clients and joins their rooms. Waits for their states, unless `ready` is false. */
  async populate({ ready = true } = {}) {
    const { clients, roomsEach, dashboards } = this.size;
    const allowed = new Set(this.open);
    for (let n = 0; n < clients; n += CONNECT_BATCH_SIZE) {
      const batch = [];
      for (let i = n; i < Math.min(n + CONNECT_BATCH_SIZE, clients); i += 1) {
        const tasks = Array.from({ length: roomsEach }, (_, room) => this.open[(i * roomsEach + room) % this.open.length]);
        batch.push(new Watcher(this.gateway, await member(`user-${i}`), {
          tasks: i === 0 ? tasks.slice(0, 1) : tasks,
          allowed,
          dashboard: i < dashboards,
          kind: this.kindOf(i),
          silence: this.recorder(),
          options: this.optionsOf(i),
        }));
      }
      this.watchers.push(...batch);
      for (const watcher of batch) await until(() => watcher.connected, 'a client is connected', 60_000);
      const joins = Promise.all(batch.map((watcher) => watcher.join()));
      if (ready) await joins;
      else joins.catch(() => {});
    }
    if (ready) for (const watcher of this.watchers) await watcher.ready();
    // All clients but the first try to join tasks that they may not see.
    this.forbiddenJoins = Promise.all(this.watchers.slice(1).map((watcher, n) => watcher.socket.emitWithAck('task:join', { taskId: this.hidden[n % this.hidden.length] })));
    if (ready) await this.forbiddenJoins;
  }

  /** Starts the writer and waits for its first writes. */
  async write() {
    const options = { uri: this.database.uri, db: this.database.name, ids: [...this.open, ...this.hidden], pause: this.size.pause };
    this.writes = 0;
    this.writer = start(process.execPath, [fileURLToPath(new URL('writer.js', import.meta.url))], {
      env: { ...process.env, WRITER: JSON.stringify(options) }, stdio: ['pipe', 'pipe', 'inherit'],
    });
    createInterface({ input: this.writer.stdout }).on('line', (line) => {
      const progress = JSON.parse(line);
      if (typeof progress === 'object') this.written = progress;
      this.writes = this.written?.writes ?? progress;
    });
    await this.moreWrites(this.size.writes);
    this.silence.begin();
  }

  /** Waits until this many more writes are done. */
  async moreWrites(count = this.size.writes) {
    const goal = this.writes + count;
    await until(() => this.writes >= goal, () => `${count} more writes; done: ${this.writes} of ${goal}`, 120_000);
  }

  /** Opens a change stream of the official driver on the same collection, with default settings. */
  async peer() {
    const silence = new Silence();
    const client = await new MongoClient(this.database.uri, { appName: 'chaos-peer' }).connect();
    const stream = client.db(this.database.name).collection('tasks').watch();
    stream.on('change', () => silence.record());
    const peer = { silence, failed: null, stop: async () => (await stream.close(), await client.close()) };
    stream.on('error', (error) => (peer.failed = error));
    return peer;
  }

  async health() {
    return this.gateway.health();
  }

  /** The numbers that the writer gave to the timeline entries (`payload.n`), as the database has them, by task. */
  async truth() {
    const documents = await this.database.tasks.find({}, { readConcern: { level: 'majority' } }).toArray();
    const truth = new Map(this.open.map((id) => [id, []]));
    for (const { _id, events, title } of documents) {
      const numbers = events.map(({ payload }) => payload.n);
      assert.equal(title, titleOf(numbers.at(-1) ?? 0), 'the writer itself is consistent');
      truth.set(_id, numbers);
    }
    return truth;
  }

  /** Waits until all clients are up to date. */
  async arrived(truth) {
    await until(() => this.watchers.every((watcher) => watcher.upToDate(truth)), 'all clients are up to date', ARRIVAL_TIMEOUT_MS);
  }

  /** Stops the writer, waits until all clients have everything, and compares. */
  async compare({ before = 1, note = '' } = {}) {
    this.writer.stdin.end('stop\n');
    await until(() => this.written, 'the writer ends', 60_000);
    // After this majority write, all earlier writes are majority-committed as well.
    await this.database.db.collection('fence').insertOne({}, { writeConcern: { w: 'majority' } });
    const truth = await this.truth();
    // A client that does not arrive has lost events. The comparison below reports them in detail.
    await this.arrived(truth).catch((error) => this.ctx.say(error.message));
    const silenceMs = Math.round(this.silence.longest);
    const counts = nothingWrong();
    for (const watcher of this.watchers) watcher.countFaults(truth, counts);
    for (const answer of await this.forbiddenJoins) if (answer.error?.code !== 'not_found') counts.forbidden += 1;
    const health = await until(async () => {
      const health = await this.health();
      return health.status === 'ok' && health;
    }, async () => `health: ${JSON.stringify(await this.health())}`);
    const row = {
      writes: this.written.writes, rate: `${Math.round(this.written.writes / (this.written.ms / 1000))}/s`, clients: this.watchers.length,
      lost: counts.lost, doubled: counts.doubled, outOfOrder: counts.outOfOrder, forbidden: counts.forbidden,
      silenceMs, epochs: health.relay.epoch - before, note,
    };
    return { row, counts };
  }

  /** Asserts that all clients are connected at the end. */
  async stillConnected() {
    assert.ok(this.watchers.every(({ connected }) => connected), 'all clients are connected');
  }

  /** Compares and asserts that there is no fault; returns the row. */
  async judge({ epochs = 0, ...more } = {}) {
    const { row, counts } = await this.compare(more);
    const details = JSON.stringify({ ...row, ...counts, examples: this.watchers.flatMap(({ forbidden, disordered }) => [...forbidden, ...disordered]).slice(0, 5) });
    assert.deepEqual(counts, nothingWrong(), details);
    assert.equal(row.epochs, epochs, `epochs: ${details}`);
    await this.stillConnected();
    return row;
  }

  /** Stops everything and heals all faults. */
  async close() {
    this.writer?.kill('SIGKILL');
    for (const watcher of this.watchers) watcher.close();
    await this.set.healFailures();
    await this.set.proxies.heal();
    try {
      await this.gateway.stop();
    } finally {
      await this.database.close();
    }
  }
}

/** The duration of a fault. Do not use it to wait for a condition. */
export const seconds = (n) => new Promise((resolve) => setTimeout(resolve, n * 1000));

/** Runs `body` in a new testbed. */
export async function withTestbed(ctx, options, body) {
  const testbed = await Testbed.start(ctx, options);
  try {
    return await body(testbed);
  } finally {
    await testbed.close();
  }
}
