// A TCP proxy in this process, for clients that stop reading without knowing it.
import { connect, createServer } from 'node:net';

export class StallingProxy {
  #links = new Set();
  #harm = null;

  static async to(target) {
    const proxy = new StallingProxy();
    proxy.server = createServer((client) => proxy.#link(client, connect({ host: '127.0.0.1', port: target })));
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  #link(client, upstream) {
    const link = { client, upstream };
    this.#links.add(link);
    upstream.on('data', (chunk) => {
      if (this.#harm === 'swallow') return;
      if (!client.write(chunk)) upstream.pause();
    });
    client.on('drain', () => this.#harm !== 'stall' && upstream.resume());
    client.on('data', (chunk) => this.#harm !== 'swallow' && upstream.write(chunk));
    for (const [from, to] of [[client, upstream], [upstream, client]]) {
      from.on('error', () => {});
      from.on('close', () => {
        this.#links.delete(link);
        // A wire that swallows tells nobody anything.
        if (this.#harm !== 'swallow') to.destroy();
      });
    }
    if (this.#harm === 'stall') upstream.pause();
  }

  /** The gateway's bytes are not read any more; what the client sends still arrives. */
  stall() {
    this.#harm = 'stall';
    for (const { upstream } of this.#links) upstream.pause();
  }

  /** Both sides' bytes vanish, and so do the ends of connections. */
  swallow() {
    this.#harm = 'swallow';
  }

  heal() {
    this.#harm = null;
    for (const { upstream } of this.#links) upstream.resume();
  }

  close() {
    this.#harm = null;
    this.server.close();
    for (const { client, upstream } of this.#links) {
      client.destroy();
      upstream.destroy();
    }
  }
}
