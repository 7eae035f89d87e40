// SIGTERM under load: the gateway serves all clients until it closes them at the end. They reconnect by themselves and lose nothing.
import assert from 'node:assert/strict';
import { connect } from 'node:net';

import { Client } from '../e2e/support/client.js';
import { Gateway } from '../e2e/support/gateway.js';
import { member } from '../e2e/support/tokens.js';
import { until } from '../e2e/support/until.js';
import { MongoClient } from './support/packages.js';
import { Reader, closeReaders, entries, newTask, readers, whole } from './support/readers.js';
import { StallingProxy } from './support/stalling-proxy.js';

const BODY = JSON.stringify({ title: 'posted while draining' });

/** Starts an API call and sends only a part of its body. */
async function openCall(gateway, token) {
  const socket = connect({ host: '127.0.0.1', port: gateway.port });
  const call = { answer: '', socket, finish: () => socket.write(BODY.slice(5)) };
  socket.setEncoding('utf8').on('data', (text) => (call.answer += text)).on('error', () => {});
  await new Promise((resolve) => socket.once('connect', resolve));
  socket.write(`POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\n`
    + `Content-Length: ${BODY.length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n`);
  await until(() => call.answer.startsWith('HTTP/1.1 100 '), 'the call is under way');
  call.answer = '';
  socket.write(BODY.slice(0, 5));
  return call;
}

const draining = (gateway) => until(async () => {
  const answer = await fetch(`${gateway.url}/api/health`);
  return answer.status === 503 && (await answer.json()).status === 'draining';
}, '/api/health says draining, with 503');

async function drained(context, { clients, idle }) {
  const client = await new MongoClient(await context.mongodb()).connect();
  const db = client.db(`drain_${process.pid}`);
  const tasks = db.collection('tasks');
  const taskId = 'drained';
  await tasks.insertOne(newTask(taskId));
  const gateway = await Gateway.start({
    MONGODB_URI: await context.mongodb(), MONGODB_DB: db.databaseName, FEATURE_TASK_API: 'full', SHUTDOWN_GRACE: '30s', DASHBOARD_LIMIT: '5',
  });
  const proxy = await StallingProxy.to(gateway.port);
  let written = 0;
  let stop = false;
  const writer = (async () => {
    while (!stop) {
      await tasks.updateOne({ _id: taskId }, { $push: { events: { $each: entries(written, 1, 50) } } });
      written += 1;
      await new Promise((resolve) => setTimeout(resolve, idle));
    }
  })();
  try {
    const alice = await member('alice');
    const all = await readers(clients, gateway.url, taskId, (n) => ({
      transports: [['websocket'], ['polling'], ['polling', 'websocket']][n % 3], reconnectionDelay: 1000, reconnectionDelayMax: 5000,
    }));
    // This client has the existing client's options and behaviour: it sends a bare resync on every connect, and no join after a reconnect.
    const existing = new Client(gateway, await member('existing'), {
      keep: false, reconnection: true, reconnectionDelay: 1000, reconnectionDelayMax: 5000, reconnectionAttempts: 5, transports: ['websocket', 'polling'],
    });
    await existing.connected();
    existing.socket.on('connect', () => existing.socket.emit('resync_requested'));
    await existing.joinDashboard();
    const stalled = new Reader(proxy.url, await member('stalled'), taskId, { reconnectionDelay: 1000, reconnectionDelayMax: 5000 });
    await until(() => stalled.states === 1, 'the client that will stall has its state');
    proxy.stall();
    const call = await openCall(gateway, alice);

    const begun = Date.now();
    gateway.child.kill('SIGTERM');
    await draining(gateway);
    for (const transport of ['polling', 'websocket']) {
      const answer = await fetch(`${gateway.url}/socket.io/?EIO=4&transport=${transport}`);
      assert.equal(answer.status, 503, `a new ${transport} connection`);
    }
    const before = written;
    await until(() => all.every(({ next }) => next > before), 'all clients are served while a call runs');
    assert.deepEqual(all.flatMap(({ disconnects }) => disconnects), [], 'clients are closed last');
    call.finish();
    assert.deepEqual(await gateway.child.exited, { code: 0, signal: null });
    const drainMs = Date.now() - begun;
    assert.match(call.answer, /^HTTP\/1\.1 202 /, 'the unfinished call is answered');
    await until(() => all.every(({ disconnects }) => disconnects.length > 0), 'all clients are disconnected');
    const reasons = new Map();
    for (const { disconnects } of all) reasons.set(disconnects[0], (reasons.get(disconnects[0]) ?? 0) + 1);
    // The client does not reconnect by itself after any other reason.
    for (const reason of reasons.keys()) assert.ok(['transport close', 'transport error'].includes(reason), reason);
    assert.ok(!gateway.output.includes('client connections did not end'), gateway.lastLines(5));

    await gateway.launch();
    proxy.heal();
    await until(() => all.every(({ states, socket }) => socket.connected && states >= 2), 'all clients are connected again', 60_000);
    stop = true;
    await writer;
    await whole([...all, stalled], { entries: written });
    assert.deepEqual([...all, stalled].flatMap(({ faults }) => faults), []);
    await tasks.updateOne({ _id: taskId }, { $set: { title: 'after', updatedAt: new Date() } });
    await until(() => existing.dashboard.tasks.get(taskId)?.title === 'after', 'the existing client gets dashboard events again');
    existing.assertInOrder();
    return {
      writes: written, clients: clients + 2, lost: 0, doubled: 0, outOfOrder: 0,
      note: `exited after ${drainMs} ms with a stalled client and a call; ${[...reasons].map(([reason, n]) => `${n} ${reason}`).join(', ')}`,
    };
  } finally {
    stop = true;
    await writer.catch(() => {});
    closeReaders();
    proxy.close();
    await gateway.stop();
    await db.dropDatabase();
    await client.close();
  }
}

async function secondSignal() {
  const gateway = await Gateway.start({ SHUTDOWN_GRACE: '60s' });
  try {
    const alice = await member('alice');
    const client = await Client.connect(gateway, alice);
    const call = await openCall(gateway, alice);
    gateway.child.kill('SIGTERM');
    await draining(gateway);
    assert.ok(client.socket.connected, 'the gateway waits for the call');
    gateway.child.kill('SIGTERM');
    const exit = await Promise.race([gateway.child.exited, new Promise((resolve) => setTimeout(resolve, 20_000, 'still running').unref())]);
    assert.deepEqual(exit, { code: 0, signal: null });
    assert.equal(call.answer, '');
    call.socket.destroy();
    return { clients: 1, note: 'exited with an unfinished call' };
  } finally {
    await gateway.stop();
  }
}

export const scenarios = [
  { name: 'clients: SIGTERM under load', short: (context) => drained(context, { clients: 40, idle: 5 }), long: (context) => drained(context, { clients: 500, idle: 20 }) },
  { name: 'clients: a second signal', short: secondSignal, long: secondSignal },
];
