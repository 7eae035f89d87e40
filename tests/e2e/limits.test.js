// The limits of one client and of one user, and features that are switched off.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { Agent, get } from 'node:http';
import { connect } from 'node:net';

import { Client, refused } from './support/client.js';
import { Gateway, withGateway } from './support/gateway.js';
import { createTask, patchTask } from './support/http.js';
import { RawSocket, frame } from './support/raw.js';
import { member, pipeline } from './support/tokens.js';
import { test } from './support/scenario.js';
import { once, until } from './support/until.js';

test('joins above the rate limit wait, and are refused only when the wait would be too long', () => withGateway({ JOIN_RATE_PER_SECOND: '2' }, async (gateway) => {
  const alice = await member('alice');
  const { taskId } = await createTask(gateway.url, alice);
  const client = await Client.connect(gateway, alice);
  const asked = 40;
  const answers = await Promise.all(Array.from({ length: asked }, () => client.ask('task:join', { taskId })));
  const accepted = answers.filter(({ ok }) => ok);
  const refusals = answers.filter(({ ok }) => !ok).map(({ error }) => error);
  assert.ok(accepted.length > 2, `more than the first ones: ${accepted.length}`);
  assert.ok(refusals.length > 0, 'not all of them');
  for (const { retryAfterMs, ...error } of refusals) {
    assert.deepEqual(error, { code: 'rate_limited', message: 'Too many requests', event: 'task:join' });
    assert.ok(Number.isInteger(retryAfterMs) && retryAfterMs > 0, String(retryAfterMs));
  }
  assert.equal(client.all('task:state').length, accepted.length);

  // The limit is for each event, and for all connections of the user together. It does not affect another user.
  const second = await Client.connect(gateway, alice);
  for (let n = 0; n < asked; n += 1) second.socket.emit('task:join', { taskId });
  assert.equal((await second.waitForEvent('error')).code, 'rate_limited');
  const bob = await Client.connect(gateway, await member('bob'));
  await bob.join(taskId);
  assert.deepEqual(bob.all('error'), []);
  [client, second, bob].forEach((one) => one.close());
}));

test('a burst above the default rate is delayed, not refused', () => withGateway({}, async (gateway) => {
  const alice = await member('alice');
  const { taskId } = await createTask(gateway.url, alice);
  const client = await Client.connect(gateway, alice);
  const answers = await Promise.all(Array.from({ length: 30 }, () => client.ask('task:join', { taskId })));
  assert.deepEqual(answers.filter(({ ok }) => !ok), []);
  client.close();
}));

test('the first two resyncs of a connection do not count against the rate limit', () => withGateway({ JOIN_RATE_PER_SECOND: '1' }, async (gateway) => {
  const alice = await member('alice');
  const { taskId } = await createTask(gateway.url, alice);
  const connections = await Promise.all(Array.from({ length: 20 }, () => Client.connect(gateway, alice)));
  const answers = await Promise.all(connections.flatMap((client) => [
    client.ask('resync_requested'),
    client.ask('resync_requested', { taskIds: [taskId] }),
  ]));
  assert.deepEqual(answers.filter(({ ok }) => !ok), []);
  connections.forEach((client) => client.close());
}));

test('the number of rooms of a client is limited', () => withGateway({ MAX_ROOMS_PER_SOCKET: '3' }, async (gateway) => {
  const alice = await member('alice');
  const ids = [];
  for (let n = 0; n < 4; n += 1) ids.push((await createTask(gateway.url, alice)).taskId);
  const client = await Client.connect(gateway, alice);
  for (const taskId of ids.slice(0, 3)) await client.join(taskId);
  await client.join(ids[0]);
  const fourth = await client.ask('task:join', { taskId: ids[3] });
  assert.deepEqual([fourth.ok, fourth.error?.code], [false, 'too_many_rooms']);
  const dashboard = await client.ask('dashboard:join');
  assert.deepEqual([dashboard.ok, dashboard.error?.code], [false, 'too_many_rooms']);
  await client.ask('task:leave', { taskId: ids[1] });
  await client.join(ids[3]);
  client.close();
}));

test('a connection above the limit of a user closes only the oldest connection of that user', () => withGateway({ MAX_CONNECTIONS_PER_USER: '2' }, async (gateway) => {
  const alice = await member('alice');
  const bob = await Client.connect(gateway, await member('bob'));
  const [first, second] = [await Client.connect(gateway, alice), await Client.connect(gateway, alice)];
  const closed = first.disconnected();
  const third = await Client.connect(gateway, alice);
  assert.equal(await closed, 'transport close');
  const { taskId } = await createTask(gateway.url, alice);
  for (const client of [second, third, bob]) await client.join(taskId);
  assert.deepEqual([second, third, bob].flatMap(({ disconnects }) => disconnects), []);
  [second, third, bob].forEach((client) => client.close());
}));

test('a message above the size limit disconnects only its sender', () => withGateway({}, async (gateway) => {
  const alice = await member('alice');
  const { taskId } = await createTask(gateway.url, alice);
  const bystander = await Client.connect(gateway, alice);
  await bystander.join(taskId);
  for (const transports of [['websocket'], ['polling']]) {
    const client = await Client.connect(gateway, await member('loud'), { transports });
    const gone = client.disconnected();
    client.socket.emit('task:join', { taskId: 'x'.repeat(300_000) });
    await gone;
  }
  await patchTask(gateway.url, await pipeline(), taskId, { status: 'coding' });
  await bystander.waitForEvent('task:coding');
  bystander.close();
}));

test('features that are off answer feature_disabled', async () => {
  const alice = await member('alice');
  await withGateway({ FEATURE_WEBSOCKET_ENABLED: 'false' }, async (gateway) => {
    for (const transports of [['websocket'], ['polling']]) assert.equal(await refused(gateway, alice, { transports }), 'feature_disabled');
  });
  const expectOff = async (client, event, payload) => {
    const { ok, error } = await client.ask(event, ...payload);
    assert.deepEqual([ok, error?.code, error?.event], [false, 'feature_disabled', event]);
  };
  await withGateway({ FEATURE_WEBSOCKET_DASHBOARD: 'false' }, async (gateway) => {
    const { taskId } = await createTask(gateway.url, alice);
    const client = await Client.connect(gateway, alice);
    await expectOff(client, 'dashboard:join', []);
    await client.join(taskId);
    await client.ask('resync_requested');
    await client.ask('task:leave', { taskId });
    assert.deepEqual(client.all('dashboard:state'), []);
    client.close();
  });
  await withGateway({ FEATURE_WEBSOCKET_TASK_DETAIL: 'false' }, async (gateway) => {
    const { taskId } = await createTask(gateway.url, alice);
    const client = await Client.connect(gateway, alice);
    await expectOff(client, 'task:join', [{ taskId }]);
    await client.joinDashboard();
    client.close();
  });
});

test('DASHBOARD_STATE_SHAPE=object sends the counts too, and DASHBOARD_LIMIT limits the tasks', () => withGateway({ DASHBOARD_STATE_SHAPE: 'object', DASHBOARD_LIMIT: '3' }, async (gateway) => {
  const alice = await member('alice');
  const ids = [];
  for (let n = 0; n < 5; n += 1) ids.push((await createTask(gateway.url, alice, { title: `task ${n}` })).taskId);
  const client = await Client.connect(gateway, alice);
  const states = once(client.socket, 'dashboard:state');
  const answer = await client.ask('dashboard:join');
  const state = await states;
  assert.deepEqual(state.tasks.map(({ taskId }) => taskId), ids.slice(2).reverse(), 'the newest three, newest first');
  assert.deepEqual(answer.tasks.map(({ taskId }) => taskId), state.tasks.map(({ taskId }) => taskId));
  assert.equal(answer.counts.activeCount, 5, 'counts cover all visible tasks');
  client.close();
}));

test('counts are sent at most five times a second, and the last one is correct', () => withGateway({}, async (gateway) => {
  const alice = await member('alice');
  const client = await Client.connect(gateway, alice);
  await client.joinDashboard();
  const writer = await pipeline();
  for (let n = 0; n < 30; n += 1) {
    const { taskId } = await createTask(gateway.url, alice);
    if (n % 3 === 0) await patchTask(gateway.url, writer, taskId, { status: 'failed', errorMessage: 'no' });
    if (n % 3 === 1) await patchTask(gateway.url, writer, taskId, { status: 'merged' });
  }
  await until(() => JSON.stringify(client.dashboard.counts) === JSON.stringify({ activeCount: 10, completedCount: 10, failedCount: 10 }),
    () => JSON.stringify(client.dashboard.counts));
  client.assertInOrder();
  client.close();
}));

test('the gateway does not spin while no slot or no file descriptor is free', async () => {
  const gateway = await Gateway.start({}, ['prlimit', '--nofile=80:80']);
  const held = [];
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  // The scrape uses a connection that is open before the others.
  const counted = async () => {
    const answer = await once(get(`${gateway.url}/metrics`, { agent }), 'response');
    const text = (await answer.setEncoding('utf8').toArray()).join('');
    return Number(/^taskcast_connections_refused_total\{reason="capacity"\} (\d+)/m.exec(text)[1]);
  };
  const hold = () => held.push(connect(gateway.port, '127.0.0.1').on('error', () => {}));
  try {
    assert.equal(await counted(), 0);
    while (held.length < 80) hold();
    const refused = await until(counted, 'no slot is free');
    // The gateway can accept no more connections now.
    execFileSync('prlimit', ['--pid', String(gateway.child.pid), '--nofile=20:80']);
    hold();
    await gateway.waitForLog(/could not accept a connection/);
    assert.ok((await counted()) <= refused + 80, 'no other connection was refused');
  } finally {
    held.forEach((socket) => socket.destroy());
    agent.destroy();
    await gateway.stop();
  }
});

test('a user that opens many connections at the same moment keeps only as many as the limit', () => withGateway({ MAX_CONNECTIONS_PER_USER: '2' }, async (gateway) => {
  const alice = await member('alice');
  const sockets = Array.from({ length: 300 }, () => new RawSocket(gateway.port));
  await Promise.all(sockets.map((socket) => socket.waitForText('"sid"')));
  for (const socket of sockets) socket.send(frame(`40${JSON.stringify({ token: alice })}`));
  await Promise.all(sockets.map((socket) => socket.waitForText('40{"sid"')));
  await until(async () => (await gateway.health()).websocket.connections === 2, 'the others are closed');
  for (const socket of sockets) socket.socket.destroy();
}));
