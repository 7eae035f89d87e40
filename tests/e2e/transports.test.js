// A whole conversation with both client versions in use, over every transport.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { io as io48 } from 'socket.io-client';
import { io as io45 } from 'socket.io-client-45';

import { Client, refused } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { createTask, patchTask } from './support/http.js';
import { member, pipeline } from './support/tokens.js';
import { test } from './support/scenario.js';
import { once, settles, until } from './support/until.js';
import { viewOf } from './expected.js';

const ABSENT = '00000000000000000000dead';
const VERSIONS = { '4.8': io48, '4.5': io45 };
const TRANSPORTS = { websocket: ['websocket'], polling: ['polling'], 'polling that upgrades': ['polling', 'websocket'] };

let gateway;
let writer;

before(async () => {
  gateway = await Gateway.start();
  writer = await pipeline();
});
after(() => gateway?.stop());

for (const [version, io] of Object.entries(VERSIONS)) {
  for (const [name, transports] of Object.entries(TRANSPORTS)) {
    test(`socket.io-client ${version}, ${name}`, () => conversation({ io, transports }));
  }
}

async function conversation(options) {
  const alice = await member('alice');
  const task = await createTask(gateway.url, alice, { title: 'Talked about' });
  const id = task.taskId;
  const change = (fields) => patchTask(gateway.url, writer, id, fields);
  const client = new Client(gateway, alice, options);
  const upgraded = options.transports.length > 1 ? once(client.socket.io.engine, 'upgrade') : null;
  await client.connected();
  await upgraded;
  assert.equal(client.socket.io.engine.transport.name, options.transports.at(-1));

  // State, with and without an acknowledgement.
  assert.deepEqual(await client.join(id), { ok: true });
  assert.deepEqual(client.copy(id).view, viewOf(task));
  const dashboard = await client.joinDashboard();
  assert.ok(Array.isArray(dashboard.tasks) && dashboard.tasks.some(({ taskId }) => taskId === id));
  assert.deepEqual(Object.keys(dashboard.counts).filter((key) => key.endsWith('Count')).sort(), ['activeCount', 'completedCount', 'failedCount']);

  // Events.
  await change({ status: 'analyzing' });
  await change({ status: 'dispatched', issueNumber: 42, issueUrl: 'https://github.com/a/b/issues/42', event: { eventType: 'dispatched', payload: { n: 1 } } });
  const dispatched = await client.waitForEvent('task:dispatched');
  assert.equal(dispatched.issueNumber, 42);
  assert.equal(dispatched.issueUrl, 'https://github.com/a/b/issues/42');
  for (const key of ['eventId', 'occurredAt', 'updatedAt']) assert.equal(typeof dispatched[key], 'string', key);
  await client.waitForEvent('task:event_added');
  await client.waitForEvent('dashboard:task_list_updated', ({ taskId, status }) => taskId === id && status === 'dispatched');
  const other = await createTask(gateway.url, alice, { title: 'Counted' });
  await client.waitForEvent('task:created', ({ taskId }) => taskId === other.taskId);
  assert.equal((await client.waitForEvent('dashboard:task_count_changed')).activeCount, dashboard.counts.activeCount + 1);

  // Refusals, by acknowledgement and by event.
  const notFound = await client.ask('task:join', { taskId: ABSENT });
  assert.equal(notFound.ok, false);
  assert.equal(notFound.error.code, 'not_found');
  assert.equal(notFound.error.event, 'task:join');
  assert.equal(typeof notFound.error.message, 'string');
  client.socket.emit('task:join', { taskId: ABSENT });
  assert.deepEqual(await client.waitForEvent('error'), notFound.error);
  client.received.length = 0;
  client.socket.emit('task:join', { taskId: '' });
  assert.deepEqual(await client.waitForEvent('error'), { code: 'invalid_payload', message: 'taskId must be a non-empty string', event: 'task:join' });

  // After a leave, the client receives no more events of the room.
  assert.deepEqual(await client.ask('task:leave', { taskId: id }), { ok: true });
  client.received.length = 0;
  await change({ status: 'coding' });
  await client.waitForEvent('dashboard:task_list_updated', ({ status }) => status === 'coding');
  assert.deepEqual(client.received.filter(({ event }) => event.startsWith('task:')), []);
  assert.deepEqual(await client.ask('dashboard:leave'), { ok: true });
  await client.join(id);
  client.received.length = 0;
  await change({ status: 'pr_open', prNumber: 7, prUrl: 'https://github.com/a/b/pull/7' });
  await client.waitForEvent('task:pr_opened');
  await change({ title: 'Renamed' });
  assert.equal((await client.waitForEvent('task:updated')).changed.title, 'Renamed');
  assert.deepEqual(client.received.filter(({ event }) => /^dashboard:task_(list|removed)/.test(event)), []);

  // After the transport is lost, a resync with `since` sends exactly what the client missed.
  const since = client.copy(id).last;
  client.drop();
  await until(() => !client.socket.connected, 'dropped');
  const missed = await change({ status: 'merged', mergeCommitSha: 'abc123', event: { eventType: 'merged', payload: {} } });
  client.received.length = 0;
  client.socket.connect();
  await client.connected();
  const answer = await client.ask('resync_requested', { taskIds: [id], since });
  assert.equal(answer.ok, true);
  assert.equal(answer.recovered, true);
  await settles(() => assert.deepEqual(client.copy(id).view, viewOf(missed)));
  assert.deepEqual(client.received.map(({ event }) => event), ['task:pr_merged', 'task:event_added']);

  client.assertInOrder();
  client.close();
}

for (const [name, transports] of Object.entries(TRANSPORTS)) {
  test(`${name}: strings that are cut inside an emoji are accepted, beside the token and in events`, async () => {
    const cut = '\u{1f600}'.slice(0, 1);
    const token = await member('alice');
    const client = new Client(gateway, token, { transports, auth: { token, name: `Al ${cut}`, [cut]: [cut] } });
    await client.connected();
    const { taskId } = await createTask(gateway.url, token, { title: `cut ${cut}` });
    // No task has such an id. The gateway answers with an error and keeps the connection.
    for (const id of [cut, `${taskId}${cut}`, `\\ud83d${cut}`]) assert.equal((await client.ask('task:join', { taskId: id })).error.code, 'not_found');
    assert.equal((await client.ask('task:join', { taskId, [cut]: { cut } })).ok, true);
    await until(() => client.copy(taskId).view?.title === 'cut \ufffd', 'its state');
    assert.equal((await client.ask('auth:refresh', { token, why: cut })).ok, true);
    assert.equal((await client.ask(cut, {})).ok, false);
    assert.deepEqual(client.disconnects, []);
    client.close();
  });
}

for (const [version, io] of Object.entries(VERSIONS)) {
  for (const [name, transports] of Object.entries(TRANSPORTS)) {
    test(`socket.io-client ${version}, ${name}: a refusal is a connect_error with a code`, async () => {
      assert.equal(await refused(gateway, 'nonsense', { io, transports }), 'unauthorized');
    });
  }
}
