// A real redis-server: started, frozen, killed, started again with nothing in it.
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

  /** `args`: more of redis-server's own; `url` and `socket`: how it is asked then. */
  constructor(port, { args = [], url = `redis://127.0.0.1:${port}`, socket = {} } = {}) {
    Object.assign(this, { port, args, url, socket });
  }

  async launch() {
    this.child = start(redisServer(), ['--bind', '127.0.0.1', '--port', String(this.port), '--save', '', '--appendonly', 'no', ...this.args], { stdio: ['ignore', 'ignore', 'ignore'] });
    await until(() => this.ask((client) => client.ping()), 'redis-server answers');
  }

  /** Runs `body` with a client of its own. */
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

  /** Closes the connections of everybody else; how many. */
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
