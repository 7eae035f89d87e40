// Like ClusterTestbed, but with Node's servers: three behind the same nginx, and one process that follows the change stream. Lost events do
// not fail a scenario here; they are counted.
import { fileURLToPath } from 'node:url';

import { Gateway } from '../../e2e/support/gateway.js';
import { until } from '../../e2e/support/until.js';
import { ClusterTestbed } from '../support/cluster-testbed.js';
import { seconds } from '../support/testbed.js';

/** When no client has received anything for this long, no more events will arrive. */
const SETTLED_AFTER = 10_000;
/** Scenarios with peers wait this many seconds where scenarios with taskcast wait until health shows the fault. */
const UNNOTICED = 6;

class Peer extends Gateway {
  program() {
    return [process.execPath, fileURLToPath(new URL('server.js', import.meta.url))];
  }
}

export class PeerTestbed extends ClusterTestbed {
  program(port, env) {
    return new Peer(port, { ROLE: 'serve', ADAPTER: this.size.adapter, ...env });
  }

  async launch() {
    this.follower = await this.node('taskcast-follower', { ROLE: 'follow' });
    await this.follower.launch();
    await super.launch();
  }

  /** The peers do not support `since` and remember no earlier connection. A client that was not recovered requests all its states. */
  kindOf() {
    return 'states';
  }

  waitForFault() {
    return seconds(UNNOTICED);
  }

  async connected() {
    await super.connected().catch((error) => this.ctx.say(error.message));
  }

  async nodesConnected() {
    const all = this.nodes.length + 1;
    await until(async () => (await this.healths()).every(({ cluster }) => cluster.nodes.length === all), `all ${all} servers know of each other`).catch((error) => this.ctx.say(error.message));
  }

  async arrived(truth) {
    await until(() => this.watchers.every((watcher) => watcher.upToDate(truth)) || this.silence.current() > SETTLED_AFTER, 'all events have arrived, or no more will', 120_000);
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
