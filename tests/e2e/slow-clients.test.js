// The gateway keeps clients that read slowly, and disconnects clients that no longer read or answer.
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';

import { Client } from './support/client.js';
import { withGateway } from './support/gateway.js';
import { createTask, patchTask } from './support/http.js';
import { PlainPolling, PlainWebSocket } from './support/plain.js';
import { start } from './support/processes.js';
import { Throttle } from './support/throttle.js';
import { member, pipeline } from './support/tokens.js';
import { test } from './support/scenario.js';
import { until } from './support/until.js';

const MEGABYTE = 2 ** 20;
const PATIENT = 60_000;

const connections = async (gateway) => (await gateway.health()).websocket.connections;
const gone = (gateway) => until(async () => (await connections(gateway)) === 0, 'the client is disconnected', PATIENT);
const entry = (n, bytes) => ({ eventType: 'step', payload: { n, filling: 'x'.repeat(bytes) } });

/** A task whose state has this many megabytes. */
async function largeTask(gateway, megabytes) {
  const { taskId } = await createTask(gateway.url, await member('alice'));
  const writer = await pipeline();
  for (let n = 0; n < megabytes * 2; n += 1) await patchTask(gateway.url, writer, taskId, { event: entry(n, MEGABYTE / 2) });
  // Each change replaces the field, so the document keeps its size. A change with the default filling has 76 KB.
  const write = (prNumber, filling = 19_000) => patchTask(gateway.url, writer, taskId, { prNumber, errorMessage: `${prNumber} ${'😀'.repeat(filling)}` });
  return { taskId, write };
}

/** The numbers that were written, as a client has received them. */
const numbers = (client) => client.all('task:updated').map(({ changed }) => changed.prNumber);

async function withThrottle(gateway, bytesPerSecond, body) {
  const throttle = await Throttle.to(gateway.port, bytesPerSecond);
  try {
    await body(throttle);
  } finally {
    throttle.close();
  }
}

const PLAIN = {
  websocket: (throttle, token) => new PlainWebSocket(Number(new URL(throttle.url).port), token),
  polling: (throttle, token) => new PlainPolling(throttle.url, token),
};

for (const [name, connect] of Object.entries(PLAIN)) {
  test(`a client may take many times PING_TIMEOUT to read a state, by ${name}`, () => withGateway({ PING_INTERVAL: '500ms', PING_TIMEOUT: '500ms' }, async (gateway) => {
    const { taskId, write } = await largeTask(gateway, 4);
    await withThrottle(gateway, MEGABYTE / 2, async (throttle) => {
      const client = connect(throttle, await member('slow'));
      try {
        await until(async () => (await connections(gateway)) === 1, 'it is connected');
        client.say(`42["task:join",{"taskId":"${taskId}"}]`);
        await until(() => throttle.passed > MEGABYTE, 'the state is being sent');
        await write(1, 0);
        await write(2, 0);
        await until(() => numbers(client).length === 2, () => `the client has everything: ${client.received.map(({ event }) => event)}; closed: ${client.closed}`, PATIENT);
        assert.deepEqual(client.all('task:state').map(({ events }) => events.length), [8]);
        assert.deepEqual(numbers(client), [1, 2]);
        // The heartbeat continues.
        const { pings } = client;
        await until(() => client.pings > pings + 2, 'it is pinged');
        assert.equal(client.closed, false);
        assert.equal(await connections(gateway), 1);
        client.answersPings = false;
        await gone(gateway);
      } finally {
        client.close();
      }
    });
  }));
}

for (const transports of [['websocket'], ['polling']]) {
  test(`a client may take many times PING_TIMEOUT to read a backlog, by ${transports}, because pings overtake it`, () => withGateway({ PING_INTERVAL: '1s', PING_TIMEOUT: '3s' }, async (gateway) => {
    const { taskId, write } = await largeTask(gateway, 0);
    await withThrottle(gateway, MEGABYTE / 2, async (throttle) => {
      const client = await Client.connect({ url: throttle.url }, await member('slow'), { transports });
      await client.join(taskId);
      const count = 80;
      for (let n = 1; n <= count; n += 1) await write(n);
      await until(() => numbers(client).length === count, () => `the client has everything: ${numbers(client).length}; ${client.disconnects}`, PATIENT);
      assert.deepEqual(numbers(client), Array.from({ length: count }, (_, n) => n + 1));
      assert.deepEqual(client.disconnects, []);
      client.assertInOrder();
    });
  }));
}

test('a client that reads slowly and then stops reading is disconnected', () => withGateway({ PING_INTERVAL: '500ms', PING_TIMEOUT: '500ms', SLOW_CLIENT_TIMEOUT: '1s' }, async (gateway) => {
  const { taskId } = await largeTask(gateway, 4);
  for (const connect of Object.values(PLAIN)) {
    await withThrottle(gateway, MEGABYTE / 2, async (throttle) => {
      const client = connect(throttle, await member('slow'));
      await until(async () => (await connections(gateway)) === 1, 'it is connected');
      client.say(`42["task:join",{"taskId":"${taskId}"}]`);
      await until(() => throttle.passed > MEGABYTE, 'the state is being sent');
      throttle.stop();
      await gone(gateway);
      client.close();
    });
  }
}));

test('a client that reads everything but answers no ping is disconnected', () => withGateway({ PING_INTERVAL: '300ms', PING_TIMEOUT: '300ms' }, async (gateway) => {
  const { taskId, write } = await largeTask(gateway, 0);
  for (const connect of Object.values(PLAIN)) {
    const client = connect(gateway, await member('mute'));
    client.answersPings = false;
    await until(async () => (await connections(gateway)) === 1, 'it is connected');
    client.say(`42["task:join",{"taskId":"${taskId}"}]`);
    let n = 0;
    await until(async () => (await write((n += 1)), (await connections(gateway)) === 0), 'the client is disconnected', PATIENT);
    assert.ok(client.pings >= 1);
    client.close();
  }
}));

test('a client whose process is stopped is disconnected, and other clients are not', () => withGateway({ PING_INTERVAL: '1s', PING_TIMEOUT: '1s', SLOW_CLIENT_TIMEOUT: '2s' }, async (gateway) => {
  const { taskId, write } = await largeTask(gateway, 1);
  const witness = await Client.connect(gateway, await member('witness'));
  await witness.join(taskId);
  const script = fileURLToPath(new URL('support/joins.js', import.meta.url));
  for (const transport of ['websocket', 'polling']) {
    const child = start(process.execPath, [script, gateway.url, await member('frozen'), taskId, transport], { stdio: ['ignore', 'pipe', 'inherit'] });
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (text) => (said += text));
    await until(() => said.includes('joined'), 'it has joined');
    assert.equal(await connections(gateway), 2);
    process.kill(-child.pid, 'SIGSTOP');
    let n = 0;
    await until(async () => (await write((n += 1)), (await connections(gateway)) === 1), 'the client is disconnected', PATIENT);
    process.kill(-child.pid, 'SIGKILL');
  }
  assert.deepEqual(witness.disconnects, []);
  witness.assertInOrder();
}));
