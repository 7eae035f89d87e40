// TCP proxies in their own process. They can slow, stall, reset or half-open connections, by name, by port, or all of them.
// As a program, this file runs the proxies. As a module, it controls them from the parent process.
import { fork } from 'node:child_process';
import { createServer, connect } from 'node:net';
import { fileURLToPath } from 'node:url';

const SELF = fileURLToPath(import.meta.url);

/**
 * Controls several proxies in one child process. The first bytes of a connection identify it: a MongoDB driver sends its application name
 * in its first message. Therefore a fault can hit the connections of one program only.
 */
export class Proxies {
  #pending = new Map();
  #next = 0;

  static async start() {
    const child = fork(SELF, ['proxy'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const proxies = new Proxies(child);
    process.on('exit', () => child.kill('SIGKILL'));
    return proxies;
  }

  constructor(child) {
    this.child = child;
    child.on('message', ({ id, answer }) => {
      this.#pending.get(id)?.(answer);
      this.#pending.delete(id);
    });
  }

  #ask(order) {
    const id = (this.#next += 1);
    return new Promise((resolve) => {
      this.#pending.set(id, resolve);
      this.child.send({ id, ...order });
    });
  }

  /** Listens on `port`, forwards to `target`. */
  open(port, target) {
    return this.#ask({ what: 'open', port, target });
  }

  /**
   * Applies `harm` to connections whose first bytes contain `name` (default: all) and that go through `port` (default: any):
   *   latency: ms    delays each chunk by this time, in both directions
   *   slow: ms       delays each answer of the server by this time, except on connections with heartbeats only,
   *                  because a busy server still answers `hello` at once
   *   stall: 'both' | 'up' | 'down'    forwards nothing (up: to the server), but keeps the connections open
   *   refuse: true   closes new connections when they send their first bytes
   * `heal()` ends all of these.
   */
  harm(harm, { name, port } = {}) {
    return this.#ask({ what: 'harm', harm, name, port });
  }

  heal() {
    return this.#ask({ what: 'heal' });
  }

  /** Resets connections; returns their number. With `halfOpen`, only the server's side is closed and the client is not notified. */
  cut({ name, port, halfOpen = false } = {}) {
    return this.#ask({ what: 'cut', name, port, halfOpen });
  }

  async stop() {
    this.child.kill('SIGKILL');
  }
}

if (process.argv[1] === SELF && process.argv[2] === 'proxy') runProxy();

/** In an OP_MSG, the command's name follows 16 bytes of header, 4 of flags, 1 for the kind, 4 for a length and 1 for a type. */
const OP_MSG = 2013;
const NAME_AT = 26;
const HEARTBEATS = ['hello', 'ismaster', 'isMaster', 'saslStart', 'saslContinue'];

/** Returns whether a chunk is a command other than a heartbeat. Drivers write each command at once, so a chunk begins with its header. */
function asksForWork(chunk) {
  if (chunk.length <= NAME_AT || chunk.readInt32LE(12) !== OP_MSG) return false;
  const name = chunk.toString('latin1', NAME_AT, chunk.indexOf(0, NAME_AT));
  return !HEARTBEATS.includes(name);
}

function runProxy() {
  const links = new Set();
  let harms = [];
  const matches = (link, { name, port }) => (port === undefined || link.port === port) && (name === undefined || link.firstBytes.includes(name));
  const harmsOf = (link) => harms.filter((rule) => matches(link, rule)).map(({ harm }) => harm);

  function forward(link, from, to, direction) {
    from.on('data', (chunk) => {
      if (direction === 'up' && link.firstBytes.length < 2000) link.firstBytes += chunk.toString('latin1');
      if (direction === 'up' && !link.works) link.works = asksForWork(chunk);
      link.queue[direction].push({ chunk, at: Date.now() });
      pump(link, to, direction);
    });
    from.on('error', () => {});
    from.on('close', () => {
      if (link.halfOpen) return;
      links.delete(link);
      to.destroy();
    });
    to.on('drain', () => from.resume());
    link.pumps[direction] = () => pump(link, to, direction);
    link.sources[direction] = from;
  }

  function pump(link, to, direction) {
    const queue = link.queue[direction];
    while (queue.length > 0) {
      const harm = harmsOf(link);
      if (harm.some(({ refuse }) => refuse) && !link.served) {
        link.client.destroy();
        link.server.destroy();
        return;
      }
      if (harm.some(({ stall }) => stall === 'both' || stall === direction)) return;
      const late = (one) => Math.max(one.latency ?? 0, direction === 'down' && link.works ? one.slow ?? 0 : 0);
      const latency = Math.max(0, ...harm.map(late));
      const wait = queue[0].at + latency - Date.now();
      if (wait > 0) {
        setTimeout(link.pumps[direction], wait);
        return;
      }
      link.served = true;
      if (!to.write(queue.shift().chunk)) link.sources[direction].pause();
    }
  }

  const commands = {
    open: ({ port, target }) => new Promise((resolve, reject) => {
      const server = createServer({ noDelay: true }, (client) => {
        const upstream = connect({ port: target, host: '127.0.0.1', noDelay: true });
        const link = { port, client, server: upstream, firstBytes: '', served: false, queue: { up: [], down: [] }, pumps: {}, sources: {} };
        links.add(link);
        forward(link, client, upstream, 'up');
        forward(link, upstream, client, 'down');
      });
      server.once('error', reject).listen(port, '127.0.0.1', () => resolve(true));
    }),
    harm: ({ harm, name, port }) => void harms.push({ harm, name, port }),
    heal() {
      harms = [];
      for (const link of links) for (const again of Object.values(link.pumps)) again();
    },
    cut(which) {
      const found = [...links].filter((link) => matches(link, which));
      for (const link of found) {
        link.halfOpen = which.halfOpen;
        link.server.destroy();
        if (!which.halfOpen) link.client.resetAndDestroy();
      }
      return found.length;
    },
  };
  process.on('message', async ({ id, what, ...order }) => process.send({ id, answer: (await commands[what](order)) ?? true }));
  process.on('disconnect', () => process.exit());
}
