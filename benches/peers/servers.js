// Starts each server as a process on its own core, with the settings for ten thousand clients from one machine.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Gateway } from '../../tests/e2e/support/gateway.js';
import { REPO } from '../../tests/e2e/support/paths.js';
import { freePort } from '../../tests/e2e/support/ports.js';

export const SERVER_CORE = '0';
const script = (name) => () => [process.execPath, fileURLToPath(new URL(name, import.meta.url))];
const example = (name) => () => [join(REPO, 'target/release/examples', name)];

/** These servers are taskcast, each with its settings. */
const TASKCAST = { taskcast: {}, sioxide: { SOCKETIO_TRANSPORT: 'socketioxide' } };
const PROGRAMS = { node: script('server.js'), nest: script('nest.js'), bare: example('bare_sioxide'), floor: example('limit_raw') };
/** These servers have no MongoDB. The load generator posts the events to them. */
export const WITHOUT_STORE = new Set(['bare', 'floor']);

/** The settings of taskcast: no limits for one address, because all connections come from this machine. */
export const OF_TASKCAST = { HANDSHAKE_RATE_PER_SECOND: '0', MAX_UNAUTHENTICATED_PER_ADDRESS: '0', JOIN_RATE_PER_SECOND: '1000000' };

class Peer extends Gateway {
  program() {
    return PROGRAMS[this.name]();
  }

  async stop() {
    this.child.kill('SIGKILL');
    await this.child.exited;
    rmSync(this.cwd, { recursive: true, force: true });
  }
}

/** Starts `count` servers. With Node's servers, only the first follows the change stream. */
export async function startServers(name, count, env) {
  const servers = [];
  for (let n = 0; n < count; n += 1) {
    const settings = TASKCAST[name];
    const more = settings ? { ...OF_TASKCAST, ...settings } : { NODE_ENV: 'production', FOLLOW: n === 0 ? '1' : '0' };
    const server = new (settings ? Gateway : Peer)(await freePort(), { ...env, ...more }, ['taskset', '-c', SERVER_CORE]);
    server.name = name;
    servers.push(server);
    await server.launch();
  }
  return servers;
}
