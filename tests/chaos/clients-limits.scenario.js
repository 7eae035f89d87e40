// Without free file descriptors or memory, the gateway refuses new connections, serves the present ones, and recovers. After a storm of
// connections, nothing is left behind.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';

import { Client } from '../e2e/support/client.js';
import { Gateway } from '../e2e/support/gateway.js';
import { createTask, patchTask } from '../e2e/support/http.js';
import { member, pipeline } from '../e2e/support/tokens.js';
import { until } from '../e2e/support/until.js';
import { io } from './support/packages.js';
import { StallingProxy } from './support/stalling-proxy.js';

/** Connects once; resolves to the socket, or to null when it is refused. */
function knock(gateway, token) {
  const socket = io(gateway.url, { auth: { token }, forceNew: true, transports: ['websocket'], reconnection: false });
  return new Promise((resolve) => {
    socket.once('connect', () => resolve(socket));
    socket.once('connect_error', () => (socket.disconnect(), resolve(null)));
  });
}

/** Opens a TCP connection that sends nothing. */
function hold(gateway) {
  const socket = connect({ host: '127.0.0.1', port: gateway.port }).on('error', () => {});
  socket.resume();
  return socket;
}

/**
 * Connects two clients with a task, then more clients until ten are refused, and adds the accepted ones to `open`. At most `most` attempts
 * are made. The first two clients must still be served.
 */
async function crowd(gateway, maxClients, open) {
  const alice = await member('alice');
  const { taskId } = await createTask(gateway.url, alice);
  const writer = await pipeline();
  const witnesses = [await Client.connect(gateway, alice), await Client.connect(gateway, await member('bob'), { transports: ['polling'] })];
  for (const witness of witnesses) await witness.join(taskId);
  // Each user has 40 connections, which is below MAX_CONNECTIONS_PER_USER.
  let refused = 0;
  for (let n = 0; refused < 10; n += 1) {
    assert.ok(n < maxClients, 'ten connections must be refused');
    const socket = await knock(gateway, await member(`user-${Math.floor(n / 40)}`));
    if (socket) open.push(socket);
    else refused += 1;
  }
  const health = await gateway.health();
  assert.equal(health.status, 'ok', 'the health endpoint still answers');
  assert.equal(health.websocket.connections, open.length + witnesses.length);
  const serves = async (title) => {
    await patchTask(gateway.url, writer, taskId, { title });
    for (const witness of witnesses) await witness.waitForEvent('task:updated', ({ changed }) => changed.title === title);
    assert.deepEqual([...witnesses.flatMap(({ disconnects }) => disconnects), ...open.filter(({ connected }) => !connected)], []);
  };
  await serves('crowded');
  return { taskId, first: witnesses[0], serves, clients: health.websocket.connections, knock: () => knock(gateway, alice) };
}

const logLineCount = (gateway, text) => gateway.output.split('\n').filter((line) => line.includes(text)).length;

async function outOfDescriptors(context, { descriptors, more }) {
  const gateway = await Gateway.start({}, ['prlimit', `--nofile=${descriptors}`]);
  const open = [];
  const held = [];
  try {
    const { taskId, first, serves, clients, knock: again } = await crowd(gateway, descriptors + more, open);

    // Plain TCP connections take the remaining descriptors. The present clients are still served, and others are closed at once.
    while (!held.some(({ destroyed }) => destroyed)) {
      assert.ok(held.length < descriptors, 'some connections must be closed at once');
      held.push(hold(gateway));
      await new Promise((resolve) => setImmediate(resolve));
      if (held.length > descriptors / 3) await until(() => held.some(({ destroyed }) => destroyed), 'one connection is closed');
    }
    const { taskId: _, ...answer } = await first.ask('resync_requested', { taskIds: [taskId], dashboard: true });
    assert.equal(answer.ok, true, 'present clients are served');

    held.forEach((socket) => socket.destroy());
    open.splice(0, 20).forEach((socket) => socket.disconnect());
    open.push(await until(again, 'a connection is accepted again'));
    await serves('recovered');
    assert.equal(logLineCount(gateway, 'no room for more connections'), 1, 'logged once, not for each connection');
    return { clients, note: `${descriptors} descriptors: ${clients} clients, then refused` };
  } finally {
    open.forEach((socket) => socket.disconnect());
    held.forEach((socket) => socket.destroy());
    await gateway.stop();
  }
}

const MB = 1024 * 1024;
/** The anonymous memory of the gateway, in bytes. File pages are not counted, because they depend on the kernel's cache. */
const held = (gateway) => 1024 * Number(/RssAnon:\s*(\d+) kB/.exec(readFileSync(`/proc/${gateway.child.pid}/status`, 'utf8'))[1]);

/** Connects clients until the gateway has reached its memory limit. `room` is the memory for these clients, in bytes. */
async function outOfMemory(context, { room }) {
  const measured = await Gateway.start();
  let idle;
  try {
    // The idle memory includes what the first client allocates permanently.
    const client = await Client.connect(measured, await member('alice'));
    await client.join((await createTask(measured.url, await member('alice'))).taskId);
    idle = held(measured);
    client.close();
  } finally {
    await measured.stop();
  }
  const gateway = await Gateway.start({ MAX_MEMORY_BYTES: String(Math.ceil(((idle + room) * 8) / 7)) });
  const open = [];
  try {
    const { serves, clients, knock: again } = await crowd(gateway, room / 2000, open);
    const peak = held(gateway);
    open.splice(0).forEach((socket) => socket.disconnect());
    open.push(await until(again, 'a connection is accepted again', 60_000));
    await serves('recovered');
    assert.ok(logLineCount(gateway, 'memory is scarce') < 5, 'logged a few times, not for each connection');
    return { clients, note: `${Math.round(idle / MB)} MB idle, refused at ${Math.round(peak / MB)} MB with ${clients} clients` };
  } finally {
    open.forEach((socket) => socket.disconnect());
    await gateway.stop();
  }
}

const files = (gateway) => readdirSync(`/proc/${gateway.child.pid}/fd`).length;

/** Clients that connect and disconnect in many ways. */
async function storm(context, { waves }) {
  const gateway = await Gateway.start({ PING_INTERVAL: '1s', PING_TIMEOUT: '1s' });
  const proxy = await StallingProxy.to(gateway.port);
  try {
    const alice = await member('alice');
    const { taskId } = await createTask(gateway.url, alice);
    const before = files(gateway);
    let came = 0;
    for (let wave = 0; wave < waves; wave += 1) {
      const clients = await Promise.all(Array.from({ length: 40 }, async (_, n) => {
        const url = n % 8 === 0 ? proxy.url : gateway.url;
        const socket = io(url, { auth: { token: await member(`user-${n}`) }, forceNew: true, reconnection: false, transports: [['websocket'], ['polling'], ['polling', 'websocket']][n % 3] });
        socket.on('connect', () => {
          socket.emit('task:join', { taskId });
          socket.emit('dashboard:join');
        });
        // Some clients disconnect during their handshake, upgrade or joins, the others when all are connected.
        if (n % 4 === 1) setTimeout(() => socket.io.engine.close(), 10 * (n % 7));
        else await new Promise((resolve) => socket.once('connect', resolve).once('connect_error', resolve));
        return socket;
      }));
      came += clients.length;
      if (wave === waves - 1) proxy.swallow();
      clients.forEach((socket, n) => (n % 8 === 0 ? socket.io.engine.close() : n % 2 === 0 ? socket.disconnect() : socket.io.engine.close()));
      // A session that never becomes a client.
      const idle = await fetch(`${gateway.url}/socket.io/?EIO=4&transport=polling`);
      await idle.text();
    }
    await until(async () => {
      const { websocket } = await gateway.health();
      return websocket.connections === 0 && websocket.connectedUsers === 0;
    }, 'no client is left', 30_000);
    proxy.close();
    // One more file is the connection of the health check.
    await until(() => files(gateway) <= before + 1, () => `${files(gateway)} files open, ${before} before`, 30_000);
    const clean = gateway.output;
    await gateway.stop();
    assert.ok(!clean.includes('client connections did not end') && !gateway.output.includes('client connections did not end'), 'no transport is left');
    return { clients: came, note: `${before} files open before, as many after` };
  } finally {
    proxy.close();
    if (gateway.exit === undefined) await gateway.stop();
  }
}

export const scenarios = [
  { name: 'clients: no file descriptors left', short: (context) => outOfDescriptors(context, { descriptors: 160, more: 20 }), long: (context) => outOfDescriptors(context, { descriptors: 1024, more: 20 }) },
  { name: 'clients: no memory left', short: (context) => outOfMemory(context, { room: 16 * MB }), long: (context) => outOfMemory(context, { room: 40 * MB }) },
  { name: 'clients: a storm leaves nothing behind', short: (context) => storm(context, { waves: 3 }), long: (context) => storm(context, { waves: 30 }) },
];
