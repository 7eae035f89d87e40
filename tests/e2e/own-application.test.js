// The task rooms in an application that has its own socketioxide server: examples/own_application.rs.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before } from 'node:test';

import { io } from 'socket.io-client';

import { Client } from './support/client.js';
import { JWT_SECRET } from './support/gateway.js';
import { freshDatabase } from './support/mongo.js';
import { binary } from './support/paths.js';
import { freePort } from './support/ports.js';
import { start } from './support/processes.js';
import { test } from './support/scenario.js';
import { member, now } from './support/tokens.js';
import { until } from './support/until.js';

const PROGRAM = process.env.TASKCAST_EXAMPLE ?? join(dirname(binary()), 'examples', 'own_application');

let database;
let folder;
let application;
let url;

before(async () => {
  database = await freshDatabase();
  folder = mkdtempSync(join(tmpdir(), 'own-application-'));
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const env = { PATH: process.env.PATH, HOST: '127.0.0.1', PORT: String(port), JWT_SECRET, DATA_DIR: folder, ...database.env };
  application = start(PROGRAM, [], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  await until(async () => (await fetch(url).catch(() => ({}))).ok, 'the application listens');
});
after(async () => {
  application?.kill('SIGKILL');
  await database?.close();
  rmSync(folder, { recursive: true, force: true });
});

test('a client joins a task and receives its changes, beside the namespace of the application', async () => {
  const { insertedId: _id } = await database.tasks.insertOne({ title: 'a task', status: 'received', orgId: 'acme', createdBy: 'bob', createdAt: new Date() });
  const client = await Client.connect({ url }, await member('alice', 'acme'));
  await client.join(String(_id));
  assert.equal(await client.socket.timeout(20_000).emitWithAck('whoami'), client.socket.id, 'an event of the application in the same namespace');
  const chats = await Promise.all([0, 1].map(async () => {
    const chat = io(`${url}/chat`, { forceNew: true, transports: ['websocket'] });
    await new Promise((resolve, reject) => chat.on('connect', resolve).on('connect_error', reject));
    return chat;
  }));
  const said = new Promise((resolve) => chats[1].on('said', resolve));
  chats[0].emit('say', { text: 'hello' });
  assert.deepEqual(await said, { text: 'hello' });
  await database.tasks.updateOne({ _id }, { $set: { status: 'coding' } });
  await client.waitForEvent('task:coding', ({ taskId }) => taskId === String(_id));
  chats.forEach((chat) => chat.close());
  client.close();
});

test('a client without a valid token is refused with the code of the gateway', async () => {
  const socket = io(url, { forceNew: true, transports: ['websocket'], auth: { token: 'x' } });
  const { message } = await new Promise((resolve) => socket.on('connect_error', resolve));
  assert.equal(message, 'unauthorized');
  socket.close();
});

test('when its token expires, a client gets the error, and its namespace ends', async () => {
  const client = await Client.connect({ url }, await member('alice', 'acme', { exp: now() + 2 }));
  const reason = new Promise((resolve) => client.socket.on('disconnect', resolve));
  await client.waitForEvent('error', ({ code }) => code === 'token_expired');
  assert.equal(await reason, 'io server disconnect');
  client.close();
});
