// Runs the unpaced writer as a child process, and runs actions at given numbers of writes.
import { createInterface } from 'node:readline';
import { join } from 'node:path';

import { PACKAGE } from './paths.js';
import { start } from './processes.js';
import { until } from './until.js';

export class LoadWriter {
  writes = 0;
  result = null;
  #planned = [];

  constructor(options) {
    this.child = start(process.execPath, [join(PACKAGE, 'support/writer.js')], {
      env: { ...process.env, WRITER: JSON.stringify(options) }, stdio: ['pipe', 'pipe', 'inherit'],
    });
    // The writer may end by itself after its last write. Then a write to its stdin fails.
    this.child.stdin.on('error', () => {});
    createInterface({ input: this.child.stdout }).on('line', (line) => this.#progress(JSON.parse(line)));
  }

  #progress(progress) {
    if (typeof progress === 'object') this.result = progress;
    this.writes = this.result?.writes ?? progress;
    while (this.#planned.length > 0 && this.#planned[0].at <= this.writes) this.#planned.shift().what();
  }

  /** Runs `what` when this many writes are done. */
  at(writes, what) {
    this.#planned.push({ at: writes, what });
    this.#planned.sort((a, b) => a.at - b.at);
  }

  /** Stops the writer and resolves to {writes, ms}. */
  async stop() {
    this.child.stdin.end('stop\n');
    await until(() => this.result, 'the writer ends', 60_000);
    await this.child.exited;
    return this.result;
  }
}
