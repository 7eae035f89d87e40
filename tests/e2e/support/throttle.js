// A TCP proxy that passes the gateway's bytes slowly, like a bad connection. It does not slow down the client's bytes.
import { connect, createServer } from 'node:net';

const TICK = 20;

export class Throttle {
  #links = new Set();
  /** Bytes passed to clients. */
  passed = 0;

  /** A proxy to a port, with this many bytes a second for each connection. */
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
    // This listener keeps the stream paused, so that little more than the bytes read here leaves the kernel.
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

  /** Stops reading from the gateway. */
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
