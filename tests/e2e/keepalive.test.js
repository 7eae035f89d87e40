// HTTP keep-alive: how long idle connections stay open, which one is closed first, and that no request is lost at shutdown.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';

import { sign as signature } from '@octokit/webhooks-methods';

import { Gateway, withGateway } from './support/gateway.js';
import { SECRET, example } from './support/github.js';
import { api, createTask, patchTask } from './support/http.js';
import { scrape } from './support/metrics.js';
import { test } from './support/scenario.js';
import { member, pipeline } from './support/tokens.js';
import { until } from './support/until.js';

const HEALTH = 'GET /api/health/live HTTP/1.1\r\nHost: x\r\n\r\n';

/** A TCP connection on which the test writes raw HTTP requests. */
class Kept {
  answers = [];
  text = '';
  /** `end` means that the server closed the connection in order. Else this is the error code. */
  closed = undefined;
  #wake = () => {};

  constructor(port) {
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true });
    this.opened = new Promise((resolve) => this.socket.once('connect', () => resolve(true)).once('error', () => resolve(false)));
    this.socket.setEncoding('latin1').on('data', (text) => {
      this.text += text;
      this.#take();
    });
    this.socket.on('end', () => this.#close('end')).on('error', ({ code }) => this.#close(code)).on('close', () => this.#close('end'));
  }

  #close(how) {
    this.closed ??= how;
    this.#wake();
  }

  /** Parses complete answers from the received text. Every answer of the gateway has a Content-Length. */
  #take() {
    for (;;) {
      const end = this.text.indexOf('\r\n\r\n');
      if (end < 0) break;
      const head = this.text.slice(0, end);
      const length = Number(/^content-length: (\d+)$/im.exec(head)?.[1] ?? 0);
      if (this.text.length < end + 4 + length) break;
      this.answers.push({ status: Number(head.split(' ')[1]), closes: /^connection: close$/im.test(head), body: this.text.slice(end + 4, end + 4 + length) });
      this.text = this.text.slice(end + 4 + length);
    }
    this.#wake();
  }

  send(text) {
    if (this.closed === undefined) this.socket.write(text);
  }

  /** The answer to one more request; undefined if the connection ended without one. */
  async ask(text) {
    const wanted = this.answers.length + 1;
    this.send(text);
    while (this.answers.length < wanted && this.closed === undefined) await new Promise((resolve) => (this.#wake = resolve));
    return this.answers[wanted - 1];
  }
}

test('a connection with a slow request head is closed before an idle one, whatever it was answered before', () => withGateway({}, async (gateway) => {
  const [idle, slow, behind, silent] = Array.from({ length: 4 }, () => new Kept(gateway.port));
  for (const kept of [idle, slow]) assert.equal((await kept.ask(HEALTH)).status, 200);
  slow.send(HEALTH.slice(0, 20));
  // The incomplete head is in the same segment as the request before it.
  assert.equal((await behind.ask(HEALTH + HEALTH.slice(0, 20))).status, 200);
  const drip = setInterval(() => [slow, behind].forEach((kept) => kept.send('x')), 100);
  try {
    await until(() => [slow, behind, silent].every(({ closed }) => closed !== undefined), 'connections with slow heads and silent connections are closed');
  } finally {
    clearInterval(drip);
  }
  assert.equal(idle.closed, undefined);
  assert.equal((await idle.ask(HEALTH)).status, 200);
  idle.socket.destroy();
}));

test('HTTP_KEEP_ALIVE closes only idle connections, and in order', () => withGateway({ HTTP_KEEP_ALIVE: '500ms' }, async (gateway) => {
  const [idle, busy] = [new Kept(gateway.port), new Kept(gateway.port)];
  for (const kept of [idle, busy]) assert.equal((await kept.ask(HEALTH)).status, 200);
  // This request takes longer than HTTP_KEEP_ALIVE, because its body does not arrive.
  const body = JSON.stringify({ title: 'slow' });
  busy.send(`POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${await member('alice')}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, 3)}`);
  await until(() => idle.closed !== undefined, 'the idle one is closed');
  assert.equal(idle.closed, 'end');
  assert.equal(busy.closed, undefined);
  assert.equal((await busy.ask(body.slice(3))).status, 202);
  await until(() => busy.closed !== undefined, 'the other one is closed when it is idle');
  assert.equal(busy.closed, 'end');
}));

test('idle connections do not keep a new client out: the longest idle one is closed', () => withGateway({ MAX_UNAUTHENTICATED_PER_ADDRESS: '8' }, async (gateway) => {
  const held = [];
  for (let n = 0; n < 4; n += 1) {
    held.push(new Kept(gateway.port));
    assert.equal((await held[n].ask(HEALTH)).status, 200);
  }
  // New connections fill the other slots. Then no slot is free until the first one has been idle for as long as a slow head may take.
  const last = await until(async () => {
    const kept = new Kept(gateway.port);
    held.push(kept);
    const answer = await kept.ask(HEALTH);
    // The event loop handles everything that has arrived with the answer.
    for (let n = 0; n < 3; n += 1) await new Promise(setImmediate);
    return held[0].closed !== undefined && answer?.status === 200 && kept;
  }, 'a new connection takes the slot of an idle one', 40_000);
  assert.deepEqual(held.slice(0, 4).map(({ closed }) => closed !== undefined), [true, false, false, false]);
  assert.equal((await held[1].ask(HEALTH)).status, 200, 'the other connections are still served');
  assert.equal(last.closed, undefined);
  for (const kept of held) kept.socket.destroy();
  const page = await until(() => scrape(gateway.url), 'the scrape gets a slot');
  assert.ok(page.get('taskcast_connections_refused_total', { reason: 'idle' }) > 0);
}));

test('a request whose head has begun when the listener closes is answered, and is the last on its connection', async () => {
  const gateway = await Gateway.start();
  const kept = new Kept(gateway.port);
  assert.equal((await kept.ask(HEALTH)).closes, false);
  kept.send(HEALTH.slice(0, 20));
  // The gateway has read the head: it has answered another request that was sent later.
  assert.equal((await api(gateway.url, 'GET', '/api/health')).status, 200);
  gateway.child.kill('SIGTERM');
  await until(async () => {
    const late = new Kept(gateway.port);
    const opened = await late.opened;
    late.socket.destroy();
    return !opened;
  }, 'no new connection is accepted');
  const answer = await kept.ask(HEALTH.slice(20));
  assert.deepEqual([answer?.status, answer?.closes], [200, true]);
  await gateway.stop();
});

test('SIGTERM loses no webhook: each that was sent is answered and stored', async () => {
  const gateway = await Gateway.start({ GITHUB_WEBHOOK_SECRET: SECRET, MAX_UNAUTHENTICATED_PER_ADDRESS: '0' });
  try {
    const [alice, writer] = await Promise.all([member('alice'), pipeline()]);
    const payload = example('issue_comment', 'created');
    const { taskId } = await createTask(gateway.url, alice, { repo: payload.repository.full_name });
    await patchTask(gateway.url, writer, taskId, { issueNumber: payload.issue.number });
    const body = JSON.stringify(payload);
    const signed = await signature(SECRET, body);
    const delivery = () => `POST /api/webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-GitHub-Event: issue_comment\r\n`
      + `X-GitHub-Delivery: ${randomUUID()}\r\nX-Hub-Signature-256: ${signed}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${Buffer.from(body).toString('latin1')}`;
    const answers = [];
    const lost = [];
    // Like a load balancer, a sender reuses a connection for its next request, and opens another one after `Connection: close`.
    const sender = async (n) => {
      for (;;) {
        const kept = new Kept(gateway.port);
        if (!(await kept.opened)) return;
        while (kept.closed === undefined) {
          const answer = await kept.ask(delivery());
          if (answer) answers.push(answer);
          else lost.push(kept.closed);
          if (!answer || answer.closes) break;
          await new Promise((resolve) => setTimeout(resolve, n));
        }
        kept.socket.destroy();
      }
    };
    const senders = Array.from({ length: 20 }, (_, n) => sender(n));
    await until(() => answers.length > 200, 'webhooks are being answered');
    gateway.child.kill('SIGTERM');
    await Promise.all(senders);
    await gateway.child.exited;
    assert.deepEqual(lost, [], 'each was answered');
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
    assert.ok(answers.some(({ closes }) => closes), 'some answers close their connection');
    await gateway.launch();
    const { body: task } = await api(gateway.url, 'GET', `/api/tasks/${taskId}`, { token: alice });
    assert.equal(task.events.length, answers.length);
  } finally {
    await gateway.stop();
  }
});
