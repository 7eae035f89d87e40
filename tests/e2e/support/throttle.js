// A TCP proxy in this process that lets the gateway's bytes through slowly, as a bad connection does. What the client sends
// is not slowed down.
import { connect, createServer } from 'node:net';

const TICK = 20;

export class Throttle {
  #links = new Set();
  /** Bytes that went to clients. */
  passed = 0;

  /** To a port, with so many bytes a second for each connection. */
  static async to(target, bytesPerSecond) {
    const throttle = new Throttle();
    throttle.bytesPerTick = Math.ceil((bytesPerSecond * TICK) / 1000);
    throttle.server = createServer((client) => throttle.#link(client, connect({ host: '127.0.0.1', port: target, noDelay: true })));
    await new Promise((resolve) => throttle.server.listen(0, '127.0.0.1', resolve));
    throttle.url = `http://127.0.0.1:${throttle.server.address().port}`;
    return throttle;
  }

  #link(client, upstream) {
    const link = { client, upstream };
    this.#links.add(link);
    // Never in flowing mode: only what is read here leaves the kernel, and a little that is read ahead.
    upstream.on('readable', () => {});
    link.timer = setInterval(() => {
      if (this.bytesPerTick === 0) return;
      const chunk = upstream.read(Math.min(this.bytesPerTick, upstream.readableLength)) ?? (upstream.read(0), null);
      if (chunk === null) return;
      this.passed += chunk.length;
      client.write(chunk);
    }, TICK);
    client.on('data', (chunk) => upstream.write(chunk));
    const end = () => {
      clearInterval(link.timer);
      this.#links.delete(link);
      client.destroy();
      upstream.destroy();
    };
    for (const side of [client, upstream]) side.on('error', end).on('close', end);
    upstream.on('end', end);
  }

  /** Nothing more is read. */
  stop() {
    this.bytesPerTick = 0;
  }

  close() {
    this.server.close();
    for (const { client, upstream, timer } of this.#links) {
      clearInterval(timer);
      client.destroy();
      upstream.destroy();
    }
  }
}
