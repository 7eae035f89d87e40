// Sessions end when their token expires, and a refreshed token changes what a client may see.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { Client, refused } from './support/client.js';
import { Gateway, withGateway } from './support/gateway.js';
import { api, createTask, patchTask } from './support/http.js';
import { scrape } from './support/metrics.js';
import { PLAIN } from './support/plain-websocket.js';
import { RawSocket } from './support/raw.js';
import { test } from './support/scenario.js';
import { member, now, pipeline, sign } from './support/tokens.js';
import { until } from './support/until.js';

let gateway;

before(async () => {
  // Only the end of the token may disconnect a client that does not read.
  gateway = await Gateway.start({ JOIN_RATE_PER_SECOND: '1000', SLOW_CLIENT_TIMEOUT: '60s' });
});
after(() => gateway?.stop());

test('a client receives nothing after its token has expired, on every transport', async () => {
  const [writer, task] = [await pipeline(), await createTask(gateway.url, await member('bob'))];
  const exp = now() + 4;
  const token = await member('alice', 'acme', { exp });
  const clients = await Promise.all([['websocket'], ['polling'], ['polling', 'websocket']].map((transports) => Client.connect(gateway, token, { transports })));
  const witness = await Client.connect(gateway, await member('carol'));
  await Promise.all([...clients, witness].map((client) => Promise.all([client.join(task.taskId), client.joinDashboard()])));
  for (let n = 0; Date.now() < (exp + 3) * 1000; n += 1) await patchTask(gateway.url, writer, task.taskId, { title: `change ${n}` });

  const times = (client) => client.received.filter(({ payload }) => payload?.occurredAt).map(({ payload }) => Date.parse(payload.occurredAt));
  await until(() => times(witness).some((at) => at > (exp + 2) * 1000), 'other clients still receive events');
  for (const client of clients) {
    assert.ok(times(client).some((at) => at > (exp - 2) * 1000), 'the client received events until its token expired');
    assert.deepEqual(times(client).filter((at) => at > (exp + 1) * 1000), [], 'nothing later than a second after exp');
    const told = client.all('error').map(({ code }) => code);
    // A polling client receives the error only when it polls in time.
    if (client.socket.io.opts.transports[0] === 'websocket' || told.length > 0) assert.deepEqual(told, ['token_expired']);
    assert.ok(!client.socket.connected && client.disconnects.length === 1, client.disconnects.join());
    assert.notEqual(client.disconnects[0], 'io server disconnect', 'clients reconnect by themselves after this reason');
  }
  assert.equal(await refused(gateway, token), 'token_expired');
  assert.equal((await api(gateway.url, 'GET', '/api/tasks', { token })).body.error.code, 'token_expired');
});

for (const distracts of PLAIN ? [false] : [false, true]) test(`a client that does not read receives no more once its token has expired${distracts ? ', even if it has asked for another transport' : ''}`, async () => {
  const [writer, task] = [await pipeline(), await createTask(gateway.url, await member('bob'))];
  for (let n = 0; n < 10; n += 1) await patchTask(gateway.url, writer, task.taskId, { event: { eventType: 'step', payload: { text: 'x'.repeat(80_000) } } });
  const exp = now() + 4;
  const client = await Client.connect(gateway, await member('alice', 'acme', { exp }));
  await client.join(task.taskId);
  if (distracts) {
    const other = new RawSocket(gateway.port, { path: `/socket.io/?EIO=4&transport=websocket&sid=${client.socket.io.engine.id}` });
    assert.ok(await other.waitForText('HTTP/1.1 '));
    // Either the request is refused, or the WebSocket is closed.
    if (!other.text.startsWith('HTTP/1.1 400')) assert.ok(await other.waitForClose(), 'the session has a WebSocket already');
  }
  const wire = client.socket.io.engine.transport.ws._socket;
  wire.pause();
  const asked = 60;
  for (let n = 0; n < asked; n += 1) client.socket.emit('resync_requested', { taskIds: [task.taskId] });
  await until(() => Date.now() > (exp + 3) * 1000, 'its token has expired');
  const gone = client.disconnected();
  wire.resume();
  await gone;
  assert.ok(client.all('task:state').length < asked / 4, `${client.all('task:state').length} states of ${asked} came: more than the kernel held`);
});

test('after auth:refresh with another organisation, the client leaves the rooms of tasks that it may no longer see', async () => {
  const mover = await Client.connect(gateway, await member('dora', 'acme'));
  const [own, acme, initech] = await Promise.all([
    createTask(gateway.url, await member('dora', 'acme'), { title: 'her own' }),
    createTask(gateway.url, await member('bob', 'acme'), { title: 'of the old one' }),
    createTask(gateway.url, await member('ida', 'initech'), { title: 'of the new one' }),
  ]);
  await Promise.all([mover.join(own.taskId), mover.join(acme.taskId), mover.joinDashboard()]);
  assert.equal((await mover.ask('task:join', { taskId: initech.taskId })).error.code, 'not_found');

  assert.equal((await mover.ask('auth:refresh', { token: await member('dora', 'initech') })).ok, true);
  await mover.waitForEvent('task:deleted', ({ taskId }) => taskId === acme.taskId);
  await until(() => mover.dashboard.states === 2 && mover.copy(own.taskId).states === 2, 'the client gets a new state of what it may still see');
  await mover.join(initech.taskId);
  const seen = mover.received.length;
  for (const [org, task] of [['acme', acme], ['acme', own], ['initech', initech]]) {
    await patchTask(gateway.url, await pipeline(org), task.taskId, { status: 'coding' });
  }
  await mover.waitForEvent('task:coding', ({ taskId }) => taskId === initech.taskId);
  await mover.waitForEvent('task:coding', ({ taskId }) => taskId === own.taskId);
  assert.ok(!JSON.stringify(mover.received.slice(seen)).includes(acme.taskId), 'no event of the old organisation');
  assert.equal((await mover.ask('task:join', { taskId: acme.taskId })).error.code, 'not_found');
  assert.ok(!mover.dashboard.tasks.has(acme.taskId) && mover.dashboard.tasks.has(initech.taskId));
  assert.equal(mover.all('task:deleted').length, 1);
});

test('auth:refresh may also shorten a session', async () => {
  const client = await Client.connect(gateway, await member('eve'));
  const exp = now() + 2;
  assert.equal((await client.ask('auth:refresh', { token: await member('eve', 'acme', { exp }) })).ok, true);
  await client.disconnected();
  assert.ok(Date.now() >= exp * 1000);
  assert.deepEqual(client.all('error').map(({ code }) => code), ['token_expired']);
});

test('a client whose queue is full still receives the reason when its session ends', () => withGateway({ SEND_QUEUE: '64', SLOW_CLIENT_TIMEOUT: '60s' }, async (gateway) => {
  const admin = await sign({ sub: 'ops', scope: 'admin' });
  /** The error code that a client receives when it reads nothing until it is disconnected, and then reads at once. */
  const attempt = async (user) => {
    const client = await Client.connect(gateway, await member(user));
    const wire = client.socket.io.engine.transport.ws._socket;
    wire.pause();
    const asked = async () => (await scrape(gateway.url)).get('taskcast_client_events_total', { event: 'unknown' });
    /** The queue can be full for a moment although the kernel still accepts data, so this waits for a stable state. */
    const settled = async () => {
      const pages = [];
      for (let n = 0; n < 20; n += 1) pages.push(await scrape(gateway.url));
      if (pages.at(-1).get('taskcast_clients_behind') === 0) return 'room';
      return pages.at(-1).since(pages[0], 'taskcast_deliveries_total') === 0 && 'full';
    };
    const before = await asked();
    let sent = 0;
    do {
      for (let n = 0; n < 500; n += 1, sent += 1) client.socket.emit('nothing:known', 'x');
      await until(async () => (await asked()) >= before + sent, 'the gateway has read all events');
    } while ((await until(settled, 'the queue is full, or has room')) === 'room');
    const gone = client.disconnected();
    assert.equal((await api(gateway.url, 'POST', '/api/admin/disconnect', { token: admin, body: { userId: user } })).status, 200);
    wire.resume();
    await gone;
    return client.all('error').at(-1).code;
  };
  // The client has 0.95 s to read its queue. The test retries, because the machine may be busy.
  let told;
  for (let n = 0; n < 5 && told !== 'unauthorized'; n += 1) told = await attempt(`user-${n}`);
  assert.equal(told, 'unauthorized');
}));
