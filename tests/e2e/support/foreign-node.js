// A node of another version, as far as the others can tell: it speaks to Redis with the scripts that nodes bring there, and says
// what it likes.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { createClient } from 'redis';

import { REPO } from './paths.js';

const BEAT_EVERY = 1000;
const KEPT_FOR = '60000';
const script = (name) => ['alive', name].map((part) => readFileSync(join(REPO, `src/cluster/scripts/${part}.lua`), 'utf8')).join('\n');

export class ForeignNode {
  /** What it was told by pub/sub. */
  words = [];

  /** `report`: how it is, as it tells the others. */
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

  /** Tells of sessions of a user that are so old; `max`: how many it allows. */
  opened(user, sessions, { max, age }) {
    return this.#run('opened', [`sessions:${user}`], [this.lease, max, KEPT_FOR, ...sessions.flatMap((session) => [session, age])]);
  }

  /** Disconnects a user; `more` is what this version adds to the word. */
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
