// A bare resync in a process that is older than two minutes. Its age is what is waited for, so this file takes that long.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { member } from './support/tokens.js';
import { test } from './support/scenario.js';
import { until } from './support/until.js';

const JUST_STARTED = 120_000;

let gateway;
let startedAt;

before(async () => {
  gateway = await Gateway.start();
  startedAt = Date.now();
});
after(() => gateway?.stop());

test('bare, nothing joined: the dashboard only for who lost it without leaving', async () => {
  await until(() => Date.now() > startedAt + JUST_STARTED + 1000, 'the process is two minutes old', JUST_STARTED + 10_000);

  const never = await Client.connect(gateway, await member('never'));
  assert.equal(await bareResyncGivesDashboard(never), false, 'never had it');
  never.close();

  const lost = await Client.connect(gateway, await member('lost'));
  await lost.joinDashboard();
  await reconnect(lost);
  assert.equal(await bareResyncGivesDashboard(lost), true, 'lost it without leaving');
  lost.close();

  const left = await Client.connect(gateway, await member('left'));
  await left.joinDashboard();
  await left.ask('dashboard:leave');
  await reconnect(left);
  assert.equal(await bareResyncGivesDashboard(left), false, 'left it');
  left.close();
}, { timeout: 180_000 });

async function reconnect(client) {
  client.drop();
  await until(() => !client.socket.connected, 'dropped');
  await until(async () => (await gateway.health()).websocket.connections === 0, 'the gateway noticed');
  client.socket.connect();
  await client.connected();
}

/** The ack of a later request comes after everything that the resync sends. */
async function bareResyncGivesDashboard(client) {
  client.received.length = 0;
  assert.equal((await client.ask('resync_requested')).ok, true);
  await client.ask('task:leave', { taskId: '00000000000000000000dead' });
  return client.all('dashboard:state').length === 1;
}
