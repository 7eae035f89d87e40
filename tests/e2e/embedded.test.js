// The first minute with taskcast: the gateway needs no configuration, prints what a user needs, and loses nothing after kill -9.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { dirname } from 'node:path';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { api, createTask, patchTask } from './support/http.js';
import { binary } from './support/paths.js';
import { killGroup, start } from './support/processes.js';
import { test } from './support/scenario.js';
import { settles, until } from './support/until.js';
import { viewOf } from './expected.js';

let gateway;
let devToken;
let tasksBeforeKill;

before(async () => {
  gateway = await Gateway.start({ JWT_SECRET: undefined, DATA_DIR: undefined });
});
after(() => gateway?.stop());

test('the gateway prints its address, a valid token, and a command to paste', async () => {
  assert.ok(gateway.stdout.includes(gateway.url), `the address in:\n${gateway.stdout}`);
  devToken = gateway.stdout.match(/eyJ[\w-]+\.[\w-]+\.[\w-]+/)?.[0];
  assert.ok(devToken, `a token in:\n${gateway.stdout}`);
  assert.ok(pasteLine(), `a line with "taskcast tail" in:\n${gateway.stdout}`);
  const { eventId, ...page } = (await api(gateway.url, 'GET', '/api/tasks', { token: devToken })).body;
  assert.deepEqual([page, typeof eventId], [{ tasks: [], nextCursor: null }, 'string']);
});

test('a client and the pasted command show a task that is created and changed over HTTP', async () => {
  const tail = paste(pasteLine());
  try {
    const client = await Client.connect(gateway, devToken);
    await client.joinDashboard();
    // The pasted command is connected when the gateway counts two connections.
    await until(async () => (await gateway.health()).websocket.connections === 2, () => `two connections\n${tail.output}`);

    const task = await createTask(gateway.url, devToken, { title: 'First task of the day' });
    assert.equal(task.status, 'received');
    const created = await client.waitForEvent('task:created', ({ taskId }) => taskId === task.taskId);
    assert.equal(created.title, 'First task of the day');
    await client.join(task.taskId);
    assert.deepEqual(client.copy(task.taskId).view, viewOf(task));

    await patchTask(gateway.url, devToken, task.taskId, { status: 'analyzing', event: { eventType: 'analysis_started', payload: { by: 'curl' } } });
    await client.waitForEvent('task:analyzing');
    await client.waitForEvent('task:event_added', ({ event }) => event.eventType === 'analysis_started' && event.payload.by === 'curl');
    await client.waitForEvent('dashboard:task_list_updated', ({ taskId, status }) => taskId === task.taskId && status === 'analyzing');

    await until(() => tail.output.includes(task.taskId) && tail.output.includes('analyzing'), () => `the pasted line shows it:\n${tail.output}`);
    client.assertInOrder();
    client.close();
  } finally {
    killGroup(tail);
    await tail.exited;
  }
});

test('tail of one task shows its events', async () => {
  const task = await createTask(gateway.url, devToken, { title: 'Watched from the terminal' });
  const tail = paste(`${pasteLine().replace(/\s--task\s+\S+/, '')} --task ${task.taskId}`);
  try {
    await until(() => tail.output.includes('Watched from the terminal'), () => `the task's state:\n${tail.output}`);
    await patchTask(gateway.url, devToken, task.taskId, { status: 'dispatched', issueNumber: 4711 });
    await until(() => /dispatched/.test(tail.output) && /4711/.test(tail.output), () => `the event:\n${tail.output}`);
  } finally {
    killGroup(tail);
    await tail.exited;
  }
});

test('every answered write is stored after kill -9 in the middle of writes', async () => {
  const titles = new Set();
  for (let n = 0; n < 20; n += 1) titles.add((await createTask(gateway.url, devToken, { title: `kept ${n}` })).title);
  let answered = 0;
  const writers = Array.from({ length: 4 }, async (_, writer) => {
    for (let n = 0; ; n += 1) {
      const title = `in flight ${writer} ${n}`;
      await createTask(gateway.url, devToken, { title });
      titles.add(title);
      answered += 1;
    }
  });
  const ended = Promise.allSettled(writers);
  await until(() => answered >= 40, 'writes are being answered');
  await gateway.kill();
  await ended;
  await gateway.launch();

  const tasks = await everyTask();
  const found = new Set(tasks.map(({ title }) => title));
  assert.deepEqual([...titles].filter((title) => !found.has(title)), [], 'answered, then lost');
  assert.equal(new Set(tasks.map(({ taskId }) => taskId)).size, tasks.length, 'listed twice');
  assert.ok(tasks.some(({ title, status }) => title === 'First task of the day' && status === 'analyzing'));
  tasksBeforeKill = tasks;
});

test('the token printed before the kill still works, and a client with `since` continues at its last event', async () => {
  const task = await createTask(gateway.url, devToken, { title: 'Survives' });
  const client = new Client(gateway, devToken, { reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
  await client.connected();
  await client.join(task.taskId);
  await patchTask(gateway.url, devToken, task.taskId, { status: 'analyzing', event: { eventType: 'one', payload: {} } });
  await client.waitForEvent('task:event_added', ({ event }) => event.eventType === 'one');
  const copy = client.copy(task.taskId);

  await gateway.kill();
  await until(() => !client.socket.connected, 'the client notices');
  await gateway.launch();
  await client.connected();
  await patchTask(gateway.url, devToken, task.taskId, { status: 'coding', event: { eventType: 'two', payload: { n: 2 } } });
  const answer = await client.ask('resync_requested', { taskIds: [task.taskId], since: copy.last });
  assert.equal(answer.ok, true, JSON.stringify(answer));
  assert.equal(typeof answer.recovered, 'boolean');
  await settles(async () => {
    const { body } = await api(gateway.url, 'GET', `/api/tasks/${task.taskId}`, { token: devToken });
    assert.deepEqual(copy.view, viewOf(body));
  });
  assert.equal(copy.states, answer.recovered ? 1 : 2, 'a state is sent exactly when the answer is not recovered');
  assert.equal(answer.recovered, true, 'the embedded log still has what happened since');
  client.assertInOrder();
  client.close();
});

test('a second restart changes nothing', async () => {
  await gateway.restart();
  const tasks = await everyTask();
  for (const task of tasksBeforeKill) {
    assert.deepEqual(tasks.find(({ taskId }) => taskId === task.taskId), task);
  }
});

/** The printed command, as a user would paste it. */
function pasteLine() {
  const line = gateway.stdout.split('\n').find((text) => text.includes('taskcast tail'));
  return line?.slice(line.search(/(?:[A-Z_]+=\S+\s+)*\S*taskcast tail/)).trim();
}

function paste(line) {
  const { PATH } = process.env;
  const child = start('bash', ['-c', line], {
    cwd: gateway.cwd,
    env: { PATH: `${dirname(binary())}:${PATH}`, HOME: gateway.cwd },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (child.output += text));
  return child;
}

async function everyTask() {
  const tasks = [];
  let cursor = null;
  do {
    const page = await api(gateway.url, 'GET', `/api/tasks?limit=100${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`, { token: devToken });
    assert.equal(page.status, 200, page.text);
    tasks.push(...page.body.tasks);
    cursor = page.body.nextCursor;
  } while (cursor);
  return tasks;
}
