// Starts, stops and kills a real redis-server. After a restart it is empty.
import { createClient } from 'redis';

import { redisServer } from './paths.js';
import { freePort } from './ports.js';
import { killGroup, start } from './processes.js';
import { until } from './until.js';

export class Redis {
  static async start(options) {
    const redis = new Redis(await freePort(), options);
    await redis.launch();
    return redis;
  }

  /** `args` are more arguments of redis-server. `url` and `socket` are options for clients that connect to it. */
  constructor(port, { args = [], url = `redis://127.0.0.1:${port}`, socket = {} } = {}) {
    Object.assign(this, { port, args, url, socket });
  }

  async launch() {
    this.child = start(redisServer(), ['--bind', '127.0.0.1', '--port', String(this.port), '--save', '', '--appendonly', 'no', ...this.args], { stdio: ['ignore', 'ignore', 'ignore'] });
    await until(() => this.ask((client) => client.ping()), 'redis-server answers');
  }

  /** Runs `body` with a new client. */
  async ask(body) {
    const client = createClient({ url: this.url, socket: { reconnectStrategy: false, connectTimeout: 2000, ...this.socket } });
    client.on('error', () => {});
    await client.connect();
    try {
      return await body(client);
    } finally {
      client.destroy();
    }
  }

  /** Closes the connections of all other clients; returns their number. */
  killClients() {
    return this.ask(async (client) => await client.sendCommand(['CLIENT', 'KILL', 'TYPE', 'normal']) + await client.sendCommand(['CLIENT', 'KILL', 'TYPE', 'pubsub']));
  }

  keys(pattern = '*') {
    return this.ask((client) => client.keys(pattern));
  }

  signal(name) {
    process.kill(-this.child.pid, name);
  }

  async stop() {
    killGroup(this.child);
    await this.child.exited;
  }
}
