// Starts, observes and kills the real binary as a child process.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { binary } from './paths.js';
import { freePort } from './ports.js';
import { start } from './processes.js';
import { until } from './until.js';

export const JWT_SECRET = 'e2e-secret-e2e-secret-e2e-secret-0123456789';
const LAST_LINES = 60;

const gateways = new Set();

/** The last log lines of all running gateways, for the report of a failed test. */
export function recentLogs() {
  return [...gateways].map((gateway) => gateway.lastLines()).join('\n');
}

export class Gateway {
  /** Starts a gateway on a free port and waits until it is ready. `env` adds settings; an undefined value removes one. */
  static async start(env = {}, under = []) {
    const gateway = new Gateway(await freePort(), env, under);
    await gateway.launch();
    return gateway;
  }

  /** `under` is a program with arguments that runs the gateway's command line, like `prlimit`. */
  constructor(port, env, under = []) {
    this.port = port;
    this.under = under;
    this.url = `http://127.0.0.1:${port}`;
    this.cwd = mkdtempSync(join(tmpdir(), 'taskcast-e2e-'));
    this.output = '';
    this.stdout = '';
    this.env = {
      PATH: process.env.PATH,
      HOME: this.cwd,
      HOST: '127.0.0.1',
      PORT: String(port),
      DATA_DIR: join(this.cwd, 'data'),
      JWT_SECRET,
      RUST_BACKTRACE: '1',
      SOCKETIO_TRANSPORT: process.env.TASKCAST_E2E_TRANSPORT,
      ...env,
    };
    for (const [name, value] of Object.entries(this.env)) if (value === undefined) delete this.env[name];
    gateways.add(this);
  }

  /** Starts the process and waits until health is ok. */
  async launch() {
    this.spawn();
    await until(
      async () => {
        assert.equal(this.exit, undefined, `the gateway ended: ${JSON.stringify(this.exit)}\n${this.lastLines()}`);
        return (await this.health()).status === 'ok';
      },
      () => `/api/health says ok\n${this.lastLines()}`,
      30_000,
    );
  }

  /** Starts the process without waiting for it. */
  spawn() {
    this.exit = undefined;
    const [program, ...args] = [...this.under, ...this.program()];
    const child = start(program, args, { cwd: this.cwd, env: this.env, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.setEncoding('utf8').on('data', (text) => {
      this.stdout += text;
      this.output += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => (this.output += text));
    child.exited.then((exit) => {
      if (this.child === child) this.exit = exit;
    });
    this.child = child;
  }

  program() {
    return [binary(), 'serve'];
  }

  async health() {
    const answer = await fetch(`${this.url}/api/health`);
    return answer.json();
  }

  /** Waits until the log matches `pattern`. The log and HTTP answers arrive over different pipes, so either may be read first. */
  async waitForLog(pattern) {
    await until(() => pattern.test(this.output), () => `the log says ${pattern}\n${this.lastLines()}`);
  }

  /** Kills the process like `kill -9`. */
  async kill() {
    this.child.kill('SIGKILL');
    await this.child.exited;
  }

  async restart() {
    await this.kill();
    await this.launch();
  }

  /** Sends SIGTERM and checks that the process exits with 0 and has never panicked. */
  async stop() {
    try {
      if (this.exit === undefined) {
        this.child.kill('SIGTERM');
        const exit = await Promise.race([
          this.child.exited,
          new Promise((resolve) => setTimeout(resolve, 30_000, 'still running').unref()),
        ]);
        assert.deepEqual(exit, { code: 0, signal: null }, `after SIGTERM\n${this.lastLines()}`);
      }
      assert.ok(!this.output.includes('panicked'), `it panicked\n${this.lastLines(400)}`);
    } finally {
      this.child.kill('SIGKILL');
      gateways.delete(this);
      rmSync(this.cwd, { recursive: true, force: true });
    }
  }

  lastLines(n = LAST_LINES) {
    const lines = this.output.trimEnd().split('\n').slice(-n);
    return [`--- gateway on port ${this.port}, last lines:`, ...lines, '---'].join('\n');
  }
}

/** Runs `body` with a new gateway, and stops it afterwards. */
export async function withGateway(env, body) {
  const gateway = await Gateway.start(env);
  try {
    await body(gateway);
  } finally {
    await gateway.stop();
  }
}
