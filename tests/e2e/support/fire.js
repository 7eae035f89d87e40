// The unpaced writer as a child, and things to do at moments of its progress.
import { createInterface } from 'node:readline';
import { join } from 'node:path';

import { PACKAGE } from './paths.js';
import { start } from './processes.js';
import { until } from './until.js';

export class Fire {
  writes = 0;
  result = null;
  #planned = [];

  constructor(options) {
    this.child = start(process.execPath, [join(PACKAGE, 'support/writer.js')], {
      env: { ...process.env, WRITER: JSON.stringify(options) }, stdio: ['pipe', 'pipe', 'inherit'],
    });
    // It ends by itself after its last write, and then can't be told to stop.
    this.child.stdin.on('error', () => {});
    createInterface({ input: this.child.stdout }).on('line', (line) => this.#progress(JSON.parse(line)));
  }

  #progress(said) {
    if (typeof said === 'object') this.result = said;
    this.writes = this.result?.writes ?? said;
    while (this.#planned.length > 0 && this.#planned[0].at <= this.writes) this.#planned.shift().what();
  }

  /** Does `what` when so many writes are done. */
  at(writes, what) {
    this.#planned.push({ at: writes, what });
    this.#planned.sort((a, b) => a.at - b.at);
  }

  /** Lets the writer end; resolves to {writes, ms}. */
  async stop() {
    this.child.stdin.end('stop\n');
    await until(() => this.result, 'the writer ends', 60_000);
    await this.child.exited;
    return this.result;
  }
}
