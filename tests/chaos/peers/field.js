// As ClusterField, of Node's servers: three behind the same nginx, and the one process that follows the change stream. Nobody fails
// here: what is lost is counted.
import { fileURLToPath } from 'node:url';

import { Gateway } from '../../e2e/support/gateway.js';
import { until } from '../../e2e/support/until.js';
import { ClusterField } from '../support/cluster-field.js';
import { seconds } from '../support/field.js';

/** Nobody in whom nothing arrives for so long will get more. */
const SETTLED_AFTER = 10_000;
/** Faults that a peer shows nobody last that long before the rest of their time begins. */
const UNNOTICED = 6;

class Peer extends Gateway {
  program() {
    return [process.execPath, fileURLToPath(new URL('server.js', import.meta.url))];
  }
}

export class PeerField extends ClusterField {
  program(port, env) {
    return new Peer(port, { ROLE: 'serve', ADAPTER: this.size.adapter, ...env });
  }

  async launch() {
    this.follower = await this.node('taskcast-follower', { ROLE: 'follow' });
    await this.follower.launch();
    await super.launch();
  }

  /** They know nothing of `since`, and a new connection nothing of the one before: whoever was not recovered asks for all its states. */
  kindOf() {
    return 'states';
  }

  noticed() {
    return seconds(UNNOTICED);
  }

  async connected() {
    await super.connected().catch((error) => this.ctx.say(error.message));
  }

  async acquainted() {
    const all = this.nodes.length + 1;
    await until(async () => (await this.healths()).every(({ cluster }) => cluster.nodes.length === all), `all servers hear of each other: ${all}`).catch((error) => this.ctx.say(error.message));
  }

  async arrived(truth) {
    await until(() => this.watchers.every((watcher) => watcher.upToDate(truth)) || this.silence.lasts() > SETTLED_AFTER, 'no more arrives', 120_000);
    this.behind = this.watchers.filter((watcher) => !watcher.connected || !watcher.upToDate(truth)).length;
  }

  async judge() {
    return (await this.compare()).row;
  }

  async close() {
    if (this.follower.exit === undefined) process.kill(this.follower.child.pid, 'SIGCONT');
    try {
      await super.close();
    } finally {
      await this.follower.stop();
    }
  }
}
