// The negative control of the burst: the same burst through a plain gateway (control/plain_emit.rs). All its clients read, and some must
// lose events. Otherwise the burst is too small to detect loss.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { REPO } from '../../e2e/support/paths.js';
import { killGroup, start } from '../../e2e/support/processes.js';
import { until } from '../../e2e/support/until.js';
import { io } from './packages.js';

const ANSWER_TIMEOUT_MS = 1000;

/** How many of `events` each of `count` clients received from a plain loop of emits. */
export async function plainBurst(count, events) {
  const path = process.env.TASKCAST_PLAIN_EMIT ?? join(REPO, 'target/debug/examples/plain_emit');
  assert.ok(existsSync(path), `${path} does not exist: run "cargo build --example plain_emit"`);
  const child = start(path, [], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  let clients = [];
  try {
    await until(() => lines.length === 1, 'the plain gateway listens');
    clients = await Promise.all(Array.from({ length: count }, async () => {
      const socket = io(`http://127.0.0.1:${lines[0]}`, { forceNew: true, transports: ['websocket'], reconnection: false });
      const client = { socket, got: 0 };
      socket.on('event', () => (client.got += 1));
      await socket.emitWithAck('join');
      return client;
    }));
    child.stdin.write(`${events}\n`);
    await until(() => lines.length === 2, 'the plain gateway has emitted everything', 60_000);
    // The answer is queued behind all events. A full queue may drop answers as well, so this retries.
    await Promise.all(clients.map(({ socket }) => until(() => socket.timeout(ANSWER_TIMEOUT_MS).emitWithAck('last').catch(() => false), 'an answer', 60_000)));
    return clients.map(({ got }) => got);
  } finally {
    clients.forEach(({ socket }) => socket.disconnect());
    killGroup(child);
  }
}
