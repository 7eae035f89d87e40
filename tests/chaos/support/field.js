// Where a fault happens: a gateway on the replica set, clients in rooms, a writer that does not wait, and the judgement at the end.
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
const CONNECT_AT_ONCE = 20;
const ARRIVES_WITHIN = 60_000;

export class Field {
  watchers = [];
  silence = new Silence();

  /** `launch`: whether the gateway is started; `under`: what runs it; other options override the size. */
  static async start(ctx, { env = {}, under, launch = true, ...size } = {}) {
    const field = new Field();
    await field.prepare(ctx, { ...SIZES[ctx.long ? 'long' : 'short'], ...size });
    field.gateway = new Gateway(await freePort(), { ...field.database.env, ...env }, under);
    if (launch) await field.gateway.launch();
    return field;
  }

  /** Whatever there is before a gateway. */
  async prepare(ctx, size) {
    this.ctx = ctx;
    this.size = size;
    this.set = await ctx.replicaSet();
    await this.set.whole();
    this.database = await this.set.database();
    await this.plant();
  }

  /** How the n-th client connects, beside what its kind says. */
  optionsOf() {
    return {};
  }

  /** What it asks for when it comes back. */
  kindOf(n) {
    return n === 0 ? 'existing' : ['since', 'states'][n % 2];
  }

  /** Hears when a client is told anything. */
  ear() {
    return this.silence;
  }

  /** Tasks that everybody of acme sees; two that only their creator does; two of another organisation. */
  async plant() {
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

  /** Connects the clients, lets them join, and waits for their states. */
  async populate({ ready = true } = {}) {
    const { clients, roomsEach, dashboards } = this.size;
    const allowed = new Set(this.open);
    for (let n = 0; n < clients; n += CONNECT_AT_ONCE) {
      const some = [];
      for (let i = n; i < Math.min(n + CONNECT_AT_ONCE, clients); i += 1) {
        const tasks = Array.from({ length: roomsEach }, (_, room) => this.open[(i * roomsEach + room) % this.open.length]);
        some.push(new Watcher(this.gateway, await member(`user-${i}`), {
          tasks: i === 0 ? tasks.slice(0, 1) : tasks,
          allowed,
          dashboard: i < dashboards,
          kind: this.kindOf(i),
          silence: this.ear(),
          options: this.optionsOf(i),
        }));
      }
      this.watchers.push(...some);
      for (const watcher of some) await until(() => watcher.connected, 'a client is connected', 60_000);
      const joins = Promise.all(some.map((watcher) => watcher.join()));
      if (ready) await joins;
      else joins.catch(() => {});
    }
    if (ready) for (const watcher of this.watchers) await watcher.ready();
    // What they must not see, they ask for.
    this.forbiddenJoins = Promise.all(this.watchers.slice(1).map((watcher, n) => watcher.socket.emitWithAck('task:join', { taskId: this.hidden[n % this.hidden.length] })));
    if (ready) await this.forbiddenJoins;
  }

  /** Starts the writer; resolves when it writes. */
  async write() {
    const options = { uri: this.database.uri, db: this.database.name, ids: [...this.open, ...this.hidden], pause: this.size.pause };
    this.writes = 0;
    this.writer = start(process.execPath, [fileURLToPath(new URL('writer.js', import.meta.url))], {
      env: { ...process.env, WRITER: JSON.stringify(options) }, stdio: ['pipe', 'pipe', 'inherit'],
    });
    createInterface({ input: this.writer.stdout }).on('line', (line) => {
      const said = JSON.parse(line);
      if (typeof said === 'object') this.written = said;
      this.writes = this.written?.writes ?? said;
    });
    await this.moreWrites(this.size.writes);
    this.silence.begin();
  }

  /** Waits until so many more writes are done. */
  async moreWrites(count = this.size.writes) {
    const goal = this.writes + count;
    await until(() => this.writes >= goal, () => `${count} more writes; done: ${this.writes} of ${goal}`, 120_000);
  }

  /** The official driver's own change stream on the same collection, at its defaults. */
  async peer() {
    const silence = new Silence();
    const client = await new MongoClient(this.database.uri, { appName: 'chaos-peer' }).connect();
    const stream = client.db(this.database.name).collection('tasks').watch();
    stream.on('change', () => silence.heard());
    const peer = { silence, failed: null, stop: async () => (await stream.close(), await client.close()) };
    stream.on('error', (error) => (peer.failed = error));
    return peer;
  }

  async health() {
    return this.gateway.health();
  }

  /** The numbers that the database has, by task. */
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

  /** Waits until everybody is up to date. */
  async arrived(truth) {
    await until(() => this.watchers.every((watcher) => watcher.upToDate(truth)), 'everybody is up to date', ARRIVES_WITHIN);
  }

  /** Stops the writer, waits until everybody has everything, and compares. */
  async compare({ before = 1, note = '' } = {}) {
    this.writer.stdin.end('stop\n');
    await until(() => this.written, 'the writer ends', 60_000);
    // A write that a majority has; what the others read is then settled, too.
    await this.database.db.collection('fence').insertOne({}, { writeConcern: { w: 'majority' } });
    const truth = await this.truth();
    // Who does not get there has lost something, which the comparison says better.
    await this.arrived(truth).catch((error) => this.ctx.say(error.message));
    const silenceMs = Math.round(this.silence.longest);
    const counts = nothingWrong();
    for (const watcher of this.watchers) watcher.judge(truth, counts);
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

  /** Compares, and nothing may be wrong. Returns the row. */
  async judge({ epochs = 0, ...more } = {}) {
    const { row, counts } = await this.compare(more);
    const told = JSON.stringify({ ...row, ...counts, examples: this.watchers.flatMap(({ forbidden, disordered }) => [...forbidden, ...disordered]).slice(0, 5) });
    assert.deepEqual(counts, nothingWrong(), told);
    assert.equal(row.epochs, epochs, `epochs: ${told}`);
    assert.ok(this.watchers.every(({ connected }) => connected), 'everybody is connected');
    return row;
  }

  /** Whatever was broken is mended. */
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

/** How long a fault lasts; never a way to wait for something. */
export const seconds = (n) => new Promise((resolve) => setTimeout(resolve, n * 1000));

/** Runs `body` in a new field. */
export async function inField(ctx, options, body) {
  const field = await Field.start(ctx, options);
  try {
    return await body(field);
  } finally {
    await field.close();
  }
}
