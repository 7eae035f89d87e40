// Three gateways with the replica set and one Redis, behind nginx. Each gateway has its own application name in MongoDB and its own proxy
// to Redis, unless the testbed is `direct`.
import assert from 'node:assert/strict';

import { Balancer } from '../../e2e/support/balancer.js';
import { Gateway } from '../../e2e/support/gateway.js';
import { freePort } from '../../e2e/support/ports.js';
import { Redis } from '../../e2e/support/redis.js';
import { until } from '../../e2e/support/until.js';
import { Testbed } from './testbed.js';

const NODES = 3;
const SIZES = {
  short: { clients: 18, tasks: 9, roomsEach: 2, dashboards: 4, writes: 60, pause: 4 },
  long: { clients: 150, tasks: 75, roomsEach: 2, dashboards: 8, writes: 2000, pause: 0 },
};
const TRANSPORTS = [['websocket'], ['polling'], ['polling', 'websocket']];

export class ClusterTestbed extends Testbed {
  nodes = [];
  /** Measurements for the note of the row. */
  notes = [];
  #recordedTimes = [];
  #begun = 0;

  static async start(ctx, options = {}) {
    const testbed = new this();
    await testbed.prepare(ctx, { ...SIZES[ctx.long ? 'long' : 'short'], ...options });
    testbed.redis = await Redis.start();
    for (let n = 0; n < NODES; n += 1) testbed.nodes.push(await testbed.node(`taskcast-${n}`));
    await testbed.launch();
    await testbed.nodesConnected();
    testbed.gateway = await Balancer[testbed.size.balancer ?? 'nginx'](testbed.nodes.map(({ port }) => port));
    return testbed;
  }

  /** A gateway that is not started yet. `extra` are more of its settings. */
  async node(name, extra = {}) {
    const { proxies, uri } = this.set;
    const redisPort = this.size.direct ? this.redis.port : await freePort();
    if (!this.size.direct) await proxies.open(redisPort, this.redis.port);
    const env = { ...this.database.env, MONGODB_URI: `${uri}&appName=${name}`, REDIS_URL: `redis://127.0.0.1:${redisPort}`, TRUSTED_PROXIES: '127.0.0.1', ...extra };
    return Object.assign(this.program(await freePort(), env), { name, redisPort });
  }

  program(port, env) {
    return new Gateway(port, env);
  }

  launch() {
    return Promise.all(this.nodes.map((node) => node.launch()));
  }

  /** Waits until the nodes' health shows the fault. */
  waitForFault(condition, what) {
    return until(condition, what, 30_000);
  }

  /** Waits until all clients are connected. */
  connected() {
    return until(() => this.watchers.every((watcher) => watcher.connected), () => `all clients are connected, except: ${
      this.watchers.filter((watcher) => !watcher.connected).map(({ kind, socket, disconnects, refusals }) => JSON.stringify({ kind, transports: socket.io.opts.transports, disconnects, refusals: refusals.slice(-3) })).join(' ')}\n${this.gateway.lastLines()}`, 60_000);
  }

  /** A client may reconnect at the end: behind nginx, a polling client returns to its node 2 s after a restart of that node. */
  stillConnected() {
    return this.connected();
  }

  /** The transports of the n-th client, and its address for the balancer. */
  optionsOf(n) {
    return { transports: TRANSPORTS[n % TRANSPORTS.length], extraHeaders: { 'X-Forwarded-For': `10.1.${n >> 8}.${n & 255}` } };
  }

  /** Records the events of each client separately, so that clients with a lost connection can be left out. */
  recorder() {
    const times = [];
    this.#recordedTimes.push(times);
    return { record: () => (this.silence.record(), times.push(performance.now())) };
  }

  async write() {
    await super.write();
    this.#begun = performance.now();
  }

  /** Waits until the health of all nodes is ok and each node knows the others. */
  async nodesConnected() {
    await until(async () => {
      const healths = await this.healths();
      return healths.every(({ status, cluster }) => status === 'ok' && cluster.nodes.length === NODES);
    }, () => `all nodes know of each other\n${this.nodes.map((node) => node.lastLines(10)).join('\n')}`, 60_000);
  }

  healths() {
    return Promise.all(this.nodes.map((node) => node.health()));
  }

  async connections() {
    return (await this.healths()).map(({ websocket }) => websocket.connections);
  }

  /** The health of a node that is not ok, else of the first, with the highest epoch of all nodes. */
  async health() {
    const healths = await this.healths();
    return { ...(healths.find(({ status }) => status !== 'ok') ?? healths[0]), relay: { epoch: Math.max(...healths.map(({ relay }) => relay.epoch)) } };
  }

  /** Clients that lost their connection. */
  hit() {
    return this.watchers.filter(({ disconnects }) => disconnects.length > 0);
  }

  /** The longest time without any event for the clients that kept their connection. */
  longestSilence() {
    const times = this.#recordedTimes.flatMap((own, n) => (this.watchers[n].disconnects.length === 0 ? own.filter((at) => at >= this.#begun) : []));
    times.push(this.#begun);
    times.sort((a, b) => a - b);
    return Math.round(times.reduce((longest, at, n) => Math.max(longest, n > 0 ? at - times[n - 1] : 0), 0));
  }

  async close() {
    const balancer = this.gateway;
    const stopped = { stop: () => Promise.all(this.nodes.map((node) => node.stop())) };
    for (const node of this.nodes) if (node.exit === undefined) process.kill(node.child.pid, 'SIGCONT');
    this.gateway = stopped;
    try {
      await super.close();
    } finally {
      await balancer?.stop();
      await this.redis.stop();
    }
  }
}

/** Runs `body` in a new testbed. */
export async function withCluster(ctx, options, body) {
  const testbed = await ClusterTestbed.start(ctx, options);
  try {
    return await body(testbed);
  } finally {
    await testbed.close();
  }
}

/** Asserts that all clients are connected and that each node has some; returns the number for each node. */
export async function assertSpread(testbed) {
  const spread = await testbed.connections();
  assert.equal(spread.reduce((sum, count) => sum + count, 0), testbed.size.clients);
  assert.ok(spread.every((count) => count > 0), `${spread}`);
  return spread;
}
