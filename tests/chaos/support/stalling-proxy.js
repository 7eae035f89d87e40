// A TCP proxy in this process that can stop reading on behalf of a client, or drop all bytes.
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
        // While bytes are dropped, neither side learns that the other has closed.
        if (this.#harm !== 'swallow') to.destroy();
      });
    }
    if (this.#harm === 'stall') upstream.pause();
  }

  /** Stops reading the gateway's bytes. The client's bytes still arrive. */
  stall() {
    this.#harm = 'stall';
    for (const { upstream } of this.#links) upstream.pause();
  }

  /** Drops the bytes of both sides, and the ends of connections. */
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
