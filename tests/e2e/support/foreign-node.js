// A fake node of another version. It uses the nodes' own Lua scripts in Redis, and can publish any report and any message.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { createClient } from 'redis';

import { REPO } from './paths.js';

const BEAT_EVERY = 1000;
const KEPT_FOR = '60000';
const script = (name) => ['alive', name].map((part) => readFileSync(join(REPO, `src/cluster/scripts/${part}.lua`), 'utf8')).join('\n');

export class ForeignNode {
  /** Messages that it has received by pub/sub. */
  words = [];

  /** `report` is the state of the node that it shows to the other nodes. */
  static async join(redis, prefix, report) {
    const node = new ForeignNode();
    Object.assign(node, { prefix, report, lease: `foreign-${report.id}` });
    node.client = await createClient({ url: redis.url }).connect();
    node.ear = await node.client.duplicate().connect();
    await node.ear.subscribe([`${prefix}all`, `${prefix}leases:${node.lease}`], (word) => node.words.push(word));
    await node.#run('begin', ['nodes', 'began'], [node.lease, '']);
    await node.#beat();
    node.beats = setInterval(() => node.#beat().catch(() => {}), BEAT_EVERY);
    return node;
  }

  #run(name, keys, args) {
    return this.client.eval(script(name), { keys: ['leases', ...keys].map((key) => this.prefix + key), arguments: args.map(String) });
  }

  #beat() {
    return this.#run('beat', ['nodes', 'began'], [this.lease, JSON.stringify(this.report)]);
  }

  /** Registers sessions of a user that are `age` ms old. `max` is the connection limit that this node applies. */
  opened(user, sessions, { max, age }) {
    return this.#run('opened', [`sessions:${user}`], [this.lease, max, KEPT_FOR, ...sessions.flatMap((session) => [session, age])]);
  }

  /** Disconnects a user. `more` are fields that this version adds to the message. */
  disconnect(user, more = {}) {
    const at = Date.now();
    return this.#run('revoked', ['disconnected'], [user, at, KEPT_FOR, JSON.stringify({ disconnect: { user, at, ...more } }), `${this.prefix}all`]);
  }

  async say(word) {
    const channels = await this.client.pubSubChannels(`${this.prefix}*`);
    for (const channel of channels) await this.client.publish(channel, word);
  }

  leave() {
    clearInterval(this.beats);
    this.client.destroy();
    this.ear.destroy();
  }
}
