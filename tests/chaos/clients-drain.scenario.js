// SIGTERM under load: the gateway serves all clients until it closes them at the end. They reconnect by themselves and lose nothing.
import assert from 'node:assert/strict';
import { connect } from 'node:net';

import { Client } from '../e2e/support/client.js';
import { Gateway } from '../e2e/support/gateway.js';
import { member } from '../e2e/support/tokens.js';
import { until } from '../e2e/support/until.js';
import { MongoClient } from './support/packages.js';
import { Reader, closeReaders, entries, newTask, readers, untilComplete } from './support/readers.js';
import { StallingProxy } from './support/stalling-proxy.js';

const BODY = JSON.stringify({ title: 'posted while draining' });

/** Starts an API request and sends only a part of its body. */
async function openRequest(gateway, token) {
  const socket = connect({ host: '127.0.0.1', port: gateway.port });
  const request = { answer: '', socket, finish: () => socket.write(BODY.slice(5)) };
  socket.setEncoding('utf8').on('data', (text) => (request.answer += text)).on('error', () => {});
  await new Promise((resolve) => socket.once('connect', resolve));
  socket.write(`POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\n`
    + `Content-Length: ${BODY.length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n`);
  await until(() => request.answer.startsWith('HTTP/1.1 100 '), 'the request is under way');
  request.answer = '';
  socket.write(BODY.slice(0, 5));
  return request;
}

const draining = (gateway) => until(async () => {
  const answer = await fetch(`${gateway.url}/api/health`);
  return answer.status === 503 && (await answer.json()).status === 'draining';
}, '/api/health says draining, with 503');

async function drainUnderLoad(context, { clients, writePauseMs }) {
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
      await new Promise((resolve) => setTimeout(resolve, writePauseMs));
    }
  })();
  try {
    const alice = await member('alice');
    const all = await readers(clients, gateway.url, taskId, (n) => ({
      transports: [['websocket'], ['polling'], ['polling', 'websocket']][n % 3], reconnectionDelay: 1000, reconnectionDelayMax: 5000,
    }));
    // This client has the options and the behaviour of the React client of an existing dashboard. On every connect, it requests a resync
    // without naming rooms. After a reconnect, it sends no join.
    const reactClient = new Client(gateway, await member('react'), {
      keep: false, reconnection: true, reconnectionDelay: 1000, reconnectionDelayMax: 5000, reconnectionAttempts: 5, transports: ['websocket', 'polling'],
    });
    await reactClient.connected();
    reactClient.socket.on('connect', () => reactClient.socket.emit('resync_requested'));
    await reactClient.joinDashboard();
    const stalled = new Reader(proxy.url, await member('stalled'), taskId, { reconnectionDelay: 1000, reconnectionDelayMax: 5000 });
    await until(() => stalled.states === 1, 'the client that will stall has its state');
    proxy.stall();
    const request = await openRequest(gateway, alice);

    const begun = Date.now();
    gateway.child.kill('SIGTERM');
    await draining(gateway);
    for (const transport of ['polling', 'websocket']) {
      const answer = await fetch(`${gateway.url}/socket.io/?EIO=4&transport=${transport}`);
      assert.equal(answer.status, 503, `a new ${transport} connection`);
    }
    const before = written;
    await until(() => all.every(({ next }) => next > before), 'all clients are served while a request is under way');
    assert.deepEqual(all.flatMap(({ disconnects }) => disconnects), [], 'clients are closed last');
    request.finish();
    assert.deepEqual(await gateway.child.exited, { code: 0, signal: null });
    const drainMs = Date.now() - begun;
    assert.match(request.answer, /^HTTP\/1\.1 202 /, 'the unfinished request is answered');
    await until(() => all.every(({ disconnects }) => disconnects.length > 0), 'all clients are disconnected');
    const reasons = new Map();
    for (const { disconnects } of all) reasons.set(disconnects[0], (reasons.get(disconnects[0]) ?? 0) + 1);
    // A drain closes the transports, so only these reasons may occur. After `io server disconnect`, a client would not reconnect.
    for (const reason of reasons.keys()) assert.ok(['transport close', 'transport error'].includes(reason), reason);
    assert.ok(!gateway.output.includes('client connections did not end'), gateway.lastLines(5));

    await gateway.launch();
    proxy.heal();
    await until(() => all.every(({ states, socket }) => socket.connected && states >= 2), 'all clients are connected again', 60_000);
    stop = true;
    await writer;
    await untilComplete([...all, stalled], { entries: written });
    assert.deepEqual([...all, stalled].flatMap(({ faults }) => faults), []);
    await tasks.updateOne({ _id: taskId }, { $set: { title: 'after', updatedAt: new Date() } });
    await until(() => reactClient.dashboard.tasks.get(taskId)?.title === 'after', 'the React client gets dashboard events again');
    reactClient.assertInOrder();
    return {
      writes: written, clients: clients + 2, lost: 0, doubled: 0, outOfOrder: 0,
      note: `exited after ${drainMs} ms with a stalled client and an unfinished request; ${[...reasons].map(([reason, n]) => `${n} ${reason}`).join(', ')}`,
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
    const request = await openRequest(gateway, alice);
    gateway.child.kill('SIGTERM');
    await draining(gateway);
    assert.ok(client.socket.connected, 'the gateway waits for the request');
    gateway.child.kill('SIGTERM');
    const exit = await Promise.race([gateway.child.exited, new Promise((resolve) => setTimeout(resolve, 20_000, 'still running').unref())]);
    assert.deepEqual(exit, { code: 0, signal: null });
    assert.equal(request.answer, '');
    request.socket.destroy();
    return { clients: 1, note: 'exited with an unfinished request' };
  } finally {
    await gateway.stop();
  }
}

export const scenarios = [
  {
    name: 'clients: SIGTERM under load',
    short: (context) => drainUnderLoad(context, { clients: 40, writePauseMs: 5 }),
    long: (context) => drainUnderLoad(context, { clients: 500, writePauseMs: 20 }),
  },
  { name: 'clients: a second signal', short: secondSignal, long: secondSignal },
];
