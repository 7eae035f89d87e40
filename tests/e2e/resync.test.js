// resync_requested: with rooms, with `since`, without arguments (bare), and for tasks that the client can no longer see.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { createTask, patchTask } from './support/http.js';
import { member, pipeline } from './support/tokens.js';
import { test } from './support/scenario.js';
import { once, settles, until } from './support/until.js';

const ABSENT = '00000000000000000000dead';

let gateway;
let writer;
let alice;
let bob;

before(async () => {
  gateway = await Gateway.start({ SEND_QUEUE: '200' });
  [writer, alice, bob] = await Promise.all([pipeline(), member('alice'), member('bob')]);
});
after(() => gateway?.stop());

const change = (id, fields) => patchTask(gateway.url, writer, id, fields);
const push = (id, n) => change(id, { event: { eventType: 'step', payload: { n } } });

test('a resync of tasks joins their rooms and lists the tasks that the client cannot see', async () => {
  const mine = await createTask(gateway.url, alice);
  const shared = await createTask(gateway.url, alice);
  const hidden = await createTask(gateway.url, alice, { isPrivate: true });
  const client = await Client.connect(gateway, bob);
  const answer = await client.ask('resync_requested', { taskIds: [mine.taskId, hidden.taskId, shared.taskId, ABSENT] });
  assert.equal(answer.ok, true);
  assert.deepEqual([...answer.gone].sort(), [ABSENT, hidden.taskId].sort());
  for (const { taskId } of [mine, shared]) {
    await client.waitForEvent('task:state', (state) => state.taskId === taskId);
    await change(taskId, { status: 'coding' });
    await client.waitForEvent('task:coding', (event) => event.taskId === taskId);
  }
  assert.equal(client.all('task:state').length, 2);
  client.assertInOrder();
  client.close();
});

test('a resync of the dashboard joins it and sends its state', async () => {
  const task = await createTask(gateway.url, alice);
  const client = await Client.connect(gateway, bob);
  const answer = await client.ask('resync_requested', { dashboard: true });
  assert.deepEqual([answer.ok, answer.gone ?? []], [true, []]);
  await until(() => client.dashboard.tasks.has(task.taskId), 'dashboard:state');
  await change(task.taskId, { status: 'coding' });
  await client.waitForEvent('dashboard:task_list_updated', ({ taskId, status }) => taskId === task.taskId && status === 'coding');
  assert.deepEqual(client.all('task:state'), []);
  client.close();
});

test('with `since`, the client receives only what it missed, in order', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const first = await Client.connect(gateway, bob);
  await first.join(taskId);
  await push(taskId, 0);
  await first.waitForEvent('task:event_added');
  const { last } = first.copy(taskId);
  first.close();
  for (let n = 1; n <= 20; n += 1) await push(taskId, n);
  const second = await Client.connect(gateway, bob);
  const answer = await second.ask('resync_requested', { taskIds: [taskId], since: last });
  assert.deepEqual([answer.ok, answer.recovered], [true, true]);
  await push(taskId, 21);
  await until(() => second.all('task:event_added').length >= 21, 'all of them');
  assert.deepEqual(second.all('task:event_added').map(({ event }) => event.payload.n), Array.from({ length: 21 }, (_, n) => n + 1));
  assert.deepEqual(second.all('task:state'), []);
  second.close();
});

test('with `since` and nothing missed, the client receives nothing', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const client = await Client.connect(gateway, bob);
  await client.join(taskId);
  await push(taskId, 0);
  await client.waitForEvent('task:event_added');
  const { last } = client.copy(taskId);
  client.drop();
  await until(() => !client.socket.connected, 'dropped');
  client.socket.connect();
  await client.connected();
  client.received.length = 0;
  const answer = await client.ask('resync_requested', { taskIds: [taskId], since: last });
  assert.deepEqual([answer.ok, answer.recovered], [true, true]);
  await push(taskId, 1);
  await client.waitForEvent('task:event_added');
  assert.deepEqual(client.received.map(({ event }) => event), ['task:event_added']);
  client.assertInOrder();
  client.close();
});

test('`since` may be the eventId of a state', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const client = await Client.connect(gateway, bob);
  await client.join(taskId);
  const { last } = client.copy(taskId);
  assert.equal(typeof last, 'string', 'task:state carries an eventId');
  client.close();
  await push(taskId, 1);
  const again = await Client.connect(gateway, bob);
  assert.equal((await again.ask('resync_requested', { taskIds: [taskId], since: last })).recovered, true);
  await again.waitForEvent('task:event_added');
  assert.deepEqual(again.all('task:state'), []);
  again.close();
});

test('a client that missed more than a quarter of the send queue gets a state', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const client = await Client.connect(gateway, bob);
  await client.join(taskId);
  const { last } = client.copy(taskId);
  client.close();
  for (let n = 0; n < 60; n += 1) await push(taskId, n);
  const again = await Client.connect(gateway, bob);
  const answer = await again.ask('resync_requested', { taskIds: [taskId], since: last });
  assert.deepEqual([answer.ok, answer.recovered], [true, false]);
  await again.waitForEvent('task:state');
  assert.equal(again.copy(taskId).view.events.length, 60);
  assert.deepEqual(again.all('task:event_added'), []);
  again.close();
});

test('a client whose `since` is too old gets a state', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const client = await Client.connect(gateway, bob);
  await client.join(taskId);
  const old = client.copy(taskId).last.replace(/[0-9a-f]/g, '0');
  const answer = await client.ask('resync_requested', { taskIds: [taskId], since: old });
  assert.deepEqual([answer.ok, answer.recovered], [true, false]);
  await until(() => client.copy(taskId).states === 2, 'a second state');
  client.close();
});

test('with `since`, the dashboard receives only what it missed', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const client = await Client.connect(gateway, bob);
  await client.joinDashboard();
  await change(taskId, { status: 'analyzing' });
  await client.waitForEvent('dashboard:task_list_updated', (one) => one.taskId === taskId && one.status === 'analyzing');
  const { last } = client.dashboard;
  client.drop();
  await until(() => !client.socket.connected, 'dropped');
  await change(taskId, { status: 'coding' });
  const fresh = await createTask(gateway.url, alice, { title: 'made meanwhile' });
  client.socket.connect();
  await client.connected();
  client.received.length = 0;
  const answer = await client.ask('resync_requested', { dashboard: true, since: last });
  assert.deepEqual([answer.ok, answer.recovered], [true, true]);
  await client.waitForEvent('dashboard:task_list_updated', (one) => one.taskId === fresh.taskId);
  const order = client.received.filter(({ event }) => event !== 'dashboard:task_count_changed').map(({ event, payload }) => [event, payload.taskId]);
  assert.deepEqual(order, [
    ['dashboard:task_list_updated', taskId],
    ['task:created', fresh.taskId],
    ['dashboard:task_list_updated', fresh.taskId],
  ]);
  client.assertInOrder();
  client.close();
});

test('a resync with `since` sends nothing after the point where the client lost access', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const client = await Client.connect(gateway, bob);
  await client.join(taskId);
  const { last } = client.copy(taskId);
  client.close();
  await push(taskId, 1);
  await change(taskId, { isPrivate: true });
  await change(taskId, { title: 'Not for bob' });
  const again = await Client.connect(gateway, bob);
  const answer = await again.ask('resync_requested', { taskIds: [taskId], since: last });
  assert.deepEqual([answer.ok, answer.gone], [true, [taskId]]);
  await change(taskId, { title: 'Not for bob either' });
  const fence = await createTask(gateway.url, alice);
  await again.join(fence.taskId);
  assert.ok(!JSON.stringify(again.received).includes('Not for bob'));
  again.close();
});

test('a bare resync sends the state of every room that the connection has joined', async () => {
  const [one, two, three] = await Promise.all([1, 2, 3].map(() => createTask(gateway.url, alice)));
  const client = await Client.connect(gateway, await member('bare'));
  await client.join(one.taskId);
  await client.join(two.taskId);
  await client.join(three.taskId);
  await client.joinDashboard();
  await client.ask('task:leave', { taskId: three.taskId });
  client.received.length = 0;
  assert.equal((await client.ask('resync_requested')).ok, true);
  await client.waitForEvent('dashboard:state');
  for (const { taskId } of [one, two]) await client.waitForEvent('task:state', (state) => state.taskId === taskId);
  await client.ask('task:leave', { taskId: ABSENT });
  assert.equal(client.received.filter(({ event }) => event.endsWith(':state')).length, 3);
  client.close();
});

test('a bare resync of a connection with tasks only does not send the dashboard', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const client = await Client.connect(gateway, await member('bare-task'));
  await client.join(taskId);
  assert.equal((await client.ask('resync_requested')).ok, true);
  await until(() => client.copy(taskId).states === 2, 'a second state');
  await client.ask('task:leave', { taskId: ABSENT });
  assert.deepEqual(client.all('dashboard:state'), []);
  client.close();
});

test('a bare resync with nothing joined gives the dashboard while the process has just started', async () => {
  const client = await Client.connect(gateway, await member('bare-fresh'));
  assert.equal((await client.ask('resync_requested')).ok, true);
  await client.waitForEvent('dashboard:state');
  const { taskId } = await createTask(gateway.url, alice);
  await client.waitForEvent('task:created', (created) => created.taskId === taskId);
  client.close();
});

test('concurrent joins and resyncs leave a correct copy', async () => {
  const { taskId } = await createTask(gateway.url, alice);
  const client = await Client.connect(gateway, bob);
  let writing = true;
  const written = (async () => {
    for (let n = 0; n < 60; n += 1) await push(taskId, n);
    writing = false;
  })();
  while (writing) {
    client.socket.emit('task:join', { taskId });
    client.socket.emit('resync_requested', { taskIds: [taskId] });
    await once(client.socket, 'task:state');
  }
  await written;
  await settles(() => {
    assert.deepEqual(client.copy(taskId).view?.events.map(({ payload }) => payload.n), Array.from({ length: 60 }, (_, n) => n));
  });
  client.close();
});
