// Attacks by clients without a token, and by authenticated clients that exceed their limits.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { Client, refused } from './support/client.js';
import { Gateway, withGateway } from './support/gateway.js';
import { createTask, patchTask } from './support/http.js';
import { scrape } from './support/metrics.js';
import { test } from './support/scenario.js';
import { member, pipeline, sign } from './support/tokens.js';
import { RawSocket, frame } from './support/raw.js';
import { Raw, ATTACKS } from './support/attacks.js';
import { until } from './support/until.js';

const HANDSHAKE = '/socket.io/?EIO=4&transport=polling';
const handshake = (gateway, headers = {}) => fetch(gateway.url + HANDSHAKE, { headers });

/** The HTTP statuses of this many handshakes. */
async function statuses(gateway, times, headers) {
  const answers = [];
  for (let n = 0; n < times; n += 1) {
    const answer = await handshake(gateway, headers);
    await answer.text();
    answers.push(answer.status);
  }
  return answers;
}

const count = (list, value) => list.filter((one) => one === value).length;

test('the handshake rate of an address is limited, and refused clients reconnect by themselves', () => withGateway({ HANDSHAKE_RATE_PER_SECOND: '1' }, async (gateway) => {
  const answers = await statuses(gateway, 30);
  assert.ok(count(answers, 200) >= 20, 'a burst of twenty seconds is accepted at once');
  assert.ok(count(answers, 429) > 0 && count(answers, 200) + count(answers, 429) === 30, answers.join());
  // The rate limit may allow another handshake by now.
  const answer = await until(async () => {
    const one = await handshake(gateway);
    return one.status === 429 ? one : (await one.text(), false);
  }, 'one more is refused');
  assert.ok(Number(answer.headers.get('retry-after')) >= 1);
  assert.equal((await answer.json()).error.code, 'rate_limited');

  for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
    const client = new Client(gateway, await member('alice'), { transports, reconnection: true, reconnectionDelay: 200, reconnectionDelayMax: 400 });
    await client.connected();
    client.close();
  }
  const page = await scrape(gateway.url);
  assert.ok(page.get('taskcast_connections_refused_total', { reason: 'rate_limited' }) > 0);
  await gateway.waitForLog(/one address opens too many/);
  assert.equal(gateway.output.split('one address opens too many').length, 2, 'the refusal is logged once, not for each handshake');
}));

test('behind a trusted proxy, X-Forwarded-For names the address of the client', () => withGateway({ HANDSHAKE_RATE_PER_SECOND: '1', TRUSTED_PROXIES: '127.0.0.1,10.0.0.0/8' }, async (gateway) => {
  const as = (address) => statuses(gateway, 30, { 'x-forwarded-for': address });
  assert.ok(count(await as('198.51.100.7'), 429) > 0);
  assert.equal(count(await statuses(gateway, 5, { 'x-forwarded-for': '203.0.113.9, 198.51.100.7:4711, 10.1.1.1' }), 200) < 5, true, 'the leftmost address is forged');
  assert.deepEqual(await statuses(gateway, 3, { 'x-forwarded-for': '198.51.100.8' }), [200, 200, 200], 'another client');
  assert.ok(count(await as('2001:db8:1:2::1'), 429) > 0);
  assert.ok(count(await statuses(gateway, 5, { 'x-forwarded-for': '2001:db8:1:2:ffff::9' }), 429) > 0, 'the same IPv6 network');
}));

test('a trusted proxy may send Forwarded (RFC 7239), which is ignored beside X-Forwarded-For', () => withGateway({ HANDSHAKE_RATE_PER_SECOND: '1', TRUSTED_PROXIES: '127.0.0.1,10.0.0.0/8' }, async (gateway) => {
  assert.ok(count(await statuses(gateway, 30, { forwarded: 'for=198.51.100.7;proto=https' }), 429) > 0);
  assert.ok(count(await statuses(gateway, 5, { forwarded: 'for=203.0.113.9, for="198.51.100.7:4711", for=10.1.1.1' }), 429) > 0, 'the leftmost address is forged');
  assert.deepEqual(await statuses(gateway, 3, { forwarded: 'for="[2001:db8::8]"' }), [200, 200, 200], 'another client');
  assert.ok(count(await statuses(gateway, 30, { 'x-forwarded-for': '198.51.100.9' }), 429) > 0);
  const invented = [];
  for (let n = 0; n < 5; n += 1) invented.push(...(await statuses(gateway, 1, { 'x-forwarded-for': '198.51.100.9', forwarded: `for=203.0.113.${n}` })));
  assert.ok(count(invented, 429) > 0, 'the client forges Forwarded behind a proxy that sends only X-Forwarded-For');
}));

test('forwarding headers of an untrusted peer are ignored', () => withGateway({ HANDSHAKE_RATE_PER_SECOND: '1' }, async (gateway) => {
  const answers = [];
  for (let n = 0; n < 30; n += 1) answers.push(...(await statuses(gateway, 1, { [n % 2 ? 'x-forwarded-for' : 'forwarded']: `${n % 2 ? '' : 'for='}198.51.100.${n}` })));
  assert.ok(count(answers, 429) > 0);
}));

test('the number of connections without a token is limited for each address', () => withGateway({ MAX_UNAUTHENTICATED_PER_ADDRESS: '12' }, async (gateway) => {
  const clients = [];
  // Connections with a token are not counted: neither WebSockets, nor polling, nor upgraded ones.
  for (let n = 0; n < 30; n += 1) {
    clients.push(await Client.connect(gateway, await member('alice'), { transports: [['websocket'], ['polling'], ['polling', 'websocket']][n % 3] }));
  }
  const held = Array.from({ length: 20 }, () => new Raw(gateway.port));
  await until(() => held.filter(({ open }) => !open).length >= 8, 'connections above the limit are closed');
  for (const raw of held) raw.close();
  const again = await until(async () => Client.connect(gateway, await member('bob')), 'a slot is free again');
  assert.deepEqual(clients.flatMap(({ disconnects }) => disconnects), []);
  // A session that sends no token ends within five seconds, and its slot is free for another connection.
  const idle = Array.from({ length: 12 }, () => handshake(gateway).then(async (answer) => (await answer.text(), answer.status), () => 0));
  const came = await Promise.all(idle);
  assert.ok(count(came, 200) > 0);
  // The scrape comes from the same address and needs a slot, too.
  const page = await until(() => scrape(gateway.url), 'the scrape gets a slot');
  assert.ok(page.get('taskcast_connections_refused_total', { reason: 'address' }) > 0);
  [again, ...clients].forEach((client) => client.close());
}));

test('an attack before authentication closes its own connection and affects no other client', async () => {
  // Some attacks end as an idle HTTP connection, which the gateway closes after this time.
  const gateway = await Gateway.start({ HTTP_KEEP_ALIVE: '5s' });
  try {
    const alice = await member('alice');
    const { taskId } = await createTask(gateway.url, alice);
    const witness = await Client.connect(gateway, alice);
    await witness.join(taskId);
    const tried = await Promise.all(Object.entries(ATTACKS).map(async ([name, trick]) => {
      const raw = new Raw(gateway.port);
      await trick.run(raw);
      return { name, raw, ...trick };
    }));
    const open = () => tried.filter(({ raw, ends }) => ends && raw.open).map(({ name }) => name);
    await until(() => open().length === 0, () => `closed: ${open()}`);
    // The gateway closes the other connections when their timeout is over.
    await until(() => tried.every(({ raw }) => !raw.open), () => `closed: ${tried.filter(({ raw }) => raw.open).map(({ name }) => name)}`);
    const status = (name) => tried.find((one) => one.name === name).raw.status;
    assert.equal(status('a POST of 1 MB'), 413);
    assert.equal(status('a POST of chunks'), 413);
    assert.equal(status('a POST that never ends'), 408);
    await patchTask(gateway.url, await pipeline(), taskId, { title: 'served on' });
    await witness.waitForEvent('task:updated', ({ changed }) => changed.title === 'served on');
    assert.deepEqual(witness.disconnects, []);
    const page = await scrape(gateway.url);
    assert.ok(page.get('taskcast_connections_refused_total', { reason: 'unauthenticated_bytes' }) > 4);
    await until(async () => (await scrape(gateway.url)).get('taskcast_unauthenticated_connections') === 0, 'none is left');
    witness.close();
  } finally {
    await gateway.stop();
  }
});

/** The Engine.IO id of a polling session that has just begun. */
const begin = async (gateway) => JSON.parse((await (await handshake(gateway)).text()).slice(1)).sid;

test('the byte limit for a client without a token also holds after an upgrade, however the query is written', () => withGateway({}, async (gateway) => {
  const path = '/socket.io/?EIO=4&transport=websocket';
  const twice = new RawSocket(gateway.port, { path: `${path}&sid&sid=${await begin(gateway)}` });
  assert.ok(await twice.waitForText('Session ID unknown'));
  twice.socket.destroy();
  const raw = new RawSocket(gateway.port, { path: `${path}&sid=${await begin(gateway)}&sid=x` });
  raw.send(frame('2probe'));
  assert.ok(await raw.waitForText('3probe'));
  raw.send(frame('5'), frame('x'.repeat(60_000), { length: 65_000 }));
  assert.ok(await raw.waitForClose());
  assert.equal((await scrape(gateway.url)).get('taskcast_connections_refused_total', { reason: 'unauthenticated_bytes' }), 1);
}));

test('the gateway reads at most two request bodies of a polling client at once', () => withGateway({}, async (gateway) => {
  const path = `${HANDSHAKE}&sid=${await begin(gateway)}`;
  const post = (body) => fetch(gateway.url + path, { method: 'POST', headers: { 'content-type': 'text/plain' }, body });
  await post(`40${JSON.stringify({ token: await member('alice') })}`);
  assert.match(await (await fetch(gateway.url + path)).text(), /40{"sid"/);
  const body = `42["nothing:known","${'x'.repeat(50_000)}"]`;
  const head = `POST ${path} HTTP/1.1\r\nHost: gate\r\nContent-Type: text/plain\r\nContent-Length: ${body.length}\r\n\r\n`;
  const raws = Array.from({ length: 20 }, () => new Raw(gateway.port));
  await Promise.all(raws.map((raw) => raw.write(head + body.slice(0, 1000))));
  const overlapping = () => raws.filter(({ status }) => status === 400);
  await until(() => overlapping().length === 18, () => `all but two are refused: ${raws.map(({ status }) => status)}`);
  assert.equal((await scrape(gateway.url)).get('taskcast_connections_refused_total', { reason: 'overlapping_requests' }), 18);
  const read = raws.filter((raw) => !overlapping().includes(raw));
  await Promise.all(read.map((raw) => raw.write(body.slice(1000))));
  await until(() => read.every(({ status }) => status === 200), 'both bodies are read to their end');
  assert.equal((await post('42["resync_requested",{}]')).status, 200, 'both slots are free again');
  for (const raw of raws) raw.close();
}));

test('a user with unfinished request bodies does not block the task API for other users', () => withGateway({}, async (gateway) => {
  const [greedy, alice] = [await member('greedy'), await member('alice')];
  const head = `POST /api/tasks HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer ${greedy}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`;
  // This is more than the gateway processes at once.
  const raws = Array.from({ length: 600 }, () => new Raw(gateway.port));
  await Promise.all(raws.map((raw) => raw.write(head)));
  await until(() => raws.filter(({ status }) => status === 503).length === 600 - 64, () => `all but 64 are refused: ${raws.map(({ status }) => status)}`);
  await createTask(gateway.url, alice);
  for (const raw of raws) raw.close();
  // When these connections are closed, their slots are free again.
  await until(() => createTask(gateway.url, greedy), 'the next request of the same user is accepted');
}));

test('every transport accepts a long token, and long messages after it', () => withGateway({}, async (gateway) => {
  const token = await sign({ sub: 'alice', orgId: 'acme', groups: 'g'.repeat(5000) });
  for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
    const client = await Client.connect(gateway, token, { transports });
    if (transports.length === 2) await until(() => client.socket.io.engine.transport.name === 'websocket', 'it is upgraded');
    // This is more than a client may send before it is authenticated.
    for (let n = 0; n < 3; n += 1) {
      const answer = await client.ask('resync_requested', { taskIds: Array.from({ length: 1000 }, (_, i) => `${'t'.repeat(40)}${i}`) });
      assert.ok(answer.ok || answer.error, 'it is answered');
    }
    assert.deepEqual(client.disconnects, []);
    client.close();
  }
  assert.equal(await refused(gateway, 'x'.repeat(12_000)), 'unauthorized');
}));

test('a client that sends too many messages gets an error and is then disconnected; other clients are not affected', () => withGateway({}, async (gateway) => {
  const [loud, other] = [await Client.connect(gateway, await member('loud')), await Client.connect(gateway, await member('other'))];
  const gone = loud.disconnected();
  let answer;
  do {
    for (let n = 0; n < 500; n += 1) loud.socket.emit('nothing:known', n);
    answer = await loud.ask('task:leave', { taskId: 'x' });
  } while (answer.ok);
  const { retryAfterMs, ...error } = answer.error;
  assert.deepEqual(error, { code: 'rate_limited', message: 'Too many requests', event: 'task:leave' });
  assert.ok(retryAfterMs >= 0);
  for (let n = 0; n < 10_000; n += 1) loud.socket.emit('nothing:known', n);
  await gone;
  assert.ok((await other.ask('resync_requested', {})).ok);
  assert.deepEqual(other.disconnects, []);
  const page = await scrape(gateway.url);
  assert.equal(page.get('taskcast_clients_cut_total', { reason: 'flooding' }), 1);
  other.close();
}));

/** The anonymous memory of the process, in bytes. File pages are not counted, because the kernel loads and evicts them at any time. */
const anonymous = (gateway) => 1024 * Number(/RssAnon:\s*(\d+) kB/.exec(readFileSync(`/proc/${gateway.child.pid}/status`, 'utf8'))[1]);

test('a connection without a token takes little memory, whatever it sends', async () => {
  const KB = 1024;
  const many = 150;
  const names = ['says nothing', 'a head that never ends', 'a POST that never ends', 'a long message, but for its end', 'fragments', 'a WebSocket that says nothing'];
  const taken = await Promise.all(names.map(async (name) => {
    const gateway = await Gateway.start();
    try {
      const before = anonymous(gateway);
      let most = before;
      const raws = Array.from({ length: many }, () => new Raw(gateway.port));
      await Promise.all(raws.map((raw) => ATTACKS[name].run(raw)));
      await until(() => {
        most = Math.max(most, anonymous(gateway));
        return raws.every(({ open }) => !open);
      }, `${name}: all are closed`, 60_000);
      return [name, Math.round((most - before) / many / KB)];
    } finally {
      await gateway.stop();
    }
  }));
  // This limit is for an unoptimised build on a busy machine. `make abuse` measures a release build.
  assert.deepEqual(taken.filter(([, each]) => each > 128), [], JSON.stringify(taken));
  console.log(taken.map(([name, each]) => `${name}: ${each} KiB`).join(', '));
});

test('a flood of handshakes and unfinished request heads affects no client and leaves nothing behind', () => withGateway({ HANDSHAKE_RATE_PER_SECOND: '10' }, async (gateway) => {
  const alice = await member('alice');
  const { taskId } = await createTask(gateway.url, alice);
  const witness = await Client.connect(gateway, alice);
  await witness.join(taskId);
  const before = anonymous(gateway);
  const slow = Array.from({ length: 300 }, () => new Raw(gateway.port));
  await Promise.all(slow.map((raw) => ATTACKS['a head that never ends'].run(raw)));
  const answers = (await Promise.all(Array.from({ length: 20 }, () => statuses(gateway, 75)))).flat();
  assert.ok(count(answers, 429) > 0 && count(answers, 200) >= 200, `${count(answers, 200)} were accepted`);
  await patchTask(gateway.url, await pipeline(), taskId, { title: 'meanwhile' });
  await witness.waitForEvent('task:updated', ({ changed }) => changed.title === 'meanwhile');
  await until(async () => (await scrape(gateway.url)).get('taskcast_unauthenticated_connections') === 0, 'all sessions have ended');
  await until(() => slow.every(({ open }) => !open), 'all slow connections are closed');
  await until(() => anonymous(gateway) < before + 24 * 1024 * 1024, () => `memory is freed: ${before}, now ${anonymous(gateway)}`, 60_000);
  assert.deepEqual(witness.disconnects, []);
  witness.close();
}));
