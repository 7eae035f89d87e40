// What somebody without a token can do to the gateway, and somebody with one who has had enough of it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { Client, refused } from './support/client.js';
import { Gateway, withGateway } from './support/gateway.js';
import { createTask, patchTask } from './support/http.js';
import { scrape } from './support/metrics.js';
import { test } from './support/scenario.js';
import { member, pipeline, sign } from './support/tokens.js';
import { RawSocket, frame } from './support/raw.js';
import { Raw, TRICKS } from './support/tricks.js';
import { until } from './support/until.js';

const HANDSHAKE = '/socket.io/?EIO=4&transport=polling';
const handshake = (gateway, headers = {}) => fetch(gateway.url + HANDSHAKE, { headers });

/** The statuses of so many handshakes. */
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

test('one address begins only so many connections, and clients come back by themselves', () => withGateway({ HANDSHAKE_RATE_PER_SECOND: '1' }, async (gateway) => {
  const answers = await statuses(gateway, 30);
  assert.ok(count(answers, 200) >= 20, 'what twenty seconds allow comes at once');
  assert.ok(count(answers, 429) > 0 && count(answers, 200) + count(answers, 429) === 30, answers.join());
  // The next second's may be there by now.
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
  await gateway.says(/one address opens too many/);
  assert.equal(gateway.output.split('one address opens too many').length, 2, 'told, and not for each');
}));

test('behind a trusted proxy the client is who it says asked it', () => withGateway({ HANDSHAKE_RATE_PER_SECOND: '1', TRUSTED_PROXIES: '127.0.0.1,10.0.0.0/8' }, async (gateway) => {
  const as = (address) => statuses(gateway, 30, { 'x-forwarded-for': address });
  assert.ok(count(await as('198.51.100.7'), 429) > 0);
  assert.equal(count(await statuses(gateway, 5, { 'x-forwarded-for': '203.0.113.9, 198.51.100.7:4711, 10.1.1.1' }), 200) < 5, true, 'the left one is invented');
  assert.deepEqual(await statuses(gateway, 3, { 'x-forwarded-for': '198.51.100.8' }), [200, 200, 200], 'somebody else');
  assert.ok(count(await as('2001:db8:1:2::1'), 429) > 0);
  assert.ok(count(await statuses(gateway, 5, { 'x-forwarded-for': '2001:db8:1:2:ffff::9' }), 429) > 0, 'the same network');
}));

test('a trusted proxy may say it as RFC 7239 has it, and not beside X-Forwarded-For', () => withGateway({ HANDSHAKE_RATE_PER_SECOND: '1', TRUSTED_PROXIES: '127.0.0.1,10.0.0.0/8' }, async (gateway) => {
  assert.ok(count(await statuses(gateway, 30, { forwarded: 'for=198.51.100.7;proto=https' }), 429) > 0);
  assert.ok(count(await statuses(gateway, 5, { forwarded: 'for=203.0.113.9, for="198.51.100.7:4711", for=10.1.1.1' }), 429) > 0, 'the left one is invented');
  assert.deepEqual(await statuses(gateway, 3, { forwarded: 'for="[2001:db8::8]"' }), [200, 200, 200], 'somebody else');
  assert.ok(count(await statuses(gateway, 30, { 'x-forwarded-for': '198.51.100.9' }), 429) > 0);
  const invented = [];
  for (let n = 0; n < 5; n += 1) invented.push(...(await statuses(gateway, 1, { 'x-forwarded-for': '198.51.100.9', forwarded: `for=203.0.113.${n}` })));
  assert.ok(count(invented, 429) > 0, 'a client behind a proxy that knows nothing of RFC 7239');
}));

test('nobody else is believed', () => withGateway({ HANDSHAKE_RATE_PER_SECOND: '1' }, async (gateway) => {
  const answers = [];
  for (let n = 0; n < 30; n += 1) answers.push(...(await statuses(gateway, 1, { [n % 2 ? 'x-forwarded-for' : 'forwarded']: `${n % 2 ? '' : 'for='}198.51.100.${n}` })));
  assert.ok(count(answers, 429) > 0);
}));

test('one address holds only so many connections without a token', () => withGateway({ MAX_UNAUTHENTICATED_PER_ADDRESS: '12' }, async (gateway) => {
  const clients = [];
  // With a token they are not counted: neither WebSockets, nor polling, nor upgraded ones.
  for (let n = 0; n < 30; n += 1) {
    clients.push(await Client.connect(gateway, await member('alice'), { transports: [['websocket'], ['polling'], ['polling', 'websocket']][n % 3] }));
  }
  const held = Array.from({ length: 20 }, () => new Raw(gateway.port));
  await until(() => held.filter(({ open }) => !open).length >= 8, 'those beyond are closed');
  for (const raw of held) raw.close();
  const again = await until(async () => Client.connect(gateway, await member('bob')), 'there is room again');
  assert.deepEqual(clients.flatMap(({ disconnects }) => disconnects), []);
  // What nobody asks for any more goes within five seconds, and others come in.
  const idle = Array.from({ length: 12 }, () => handshake(gateway).then(async (answer) => (await answer.text(), answer.status), () => 0));
  const came = await Promise.all(idle);
  assert.ok(count(came, 200) > 0);
  // Of the same address.
  const page = await until(() => scrape(gateway.url), 'an operator finds a place, too');
  assert.ok(page.get('taskcast_connections_refused_total', { reason: 'address' }) > 0);
  [again, ...clients].forEach((client) => client.close());
}));

test('tricks before a token cost their connection, and nobody else', async () => {
  // Some of them end in an idle HTTP connection, whose time this setting is.
  const gateway = await Gateway.start({ HTTP_KEEP_ALIVE: '5s' });
  try {
    const alice = await member('alice');
    const { taskId } = await createTask(gateway.url, alice);
    const witness = await Client.connect(gateway, alice);
    await witness.join(taskId);
    const tried = await Promise.all(Object.entries(TRICKS).map(async ([name, trick]) => {
      const raw = new Raw(gateway.port);
      await trick.run(raw);
      return { name, raw, ...trick };
    }));
    const open = () => tried.filter(({ raw, ends }) => ends && raw.open).map(({ name }) => name);
    await until(() => open().length === 0, () => `closed: ${open()}`);
    // The others when their time is over.
    await until(() => tried.every(({ raw }) => !raw.open), () => `closed: ${tried.filter(({ raw }) => raw.open).map(({ name }) => name)}`);
    const status = (name) => tried.find((one) => one.name === name).raw.status;
    assert.equal(status('a POST of 1 MB'), 413);
    assert.equal(status('a POST of chunks'), 413);
    assert.equal(status('a POST that never ends'), 408);
    await patchTask(gateway.url, await pipeline(), taskId, { title: 'served on' });
    await witness.saw('task:updated', ({ changed }) => changed.title === 'served on');
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

test('what is read of a client without a token is limited after an upgrade, too, however the query is written', () => withGateway({}, async (gateway) => {
  const path = '/socket.io/?EIO=4&transport=websocket';
  const twice = new RawSocket(gateway.port, { path: `${path}&sid&sid=${await begin(gateway)}` });
  assert.ok(await twice.hears('Session ID unknown'));
  twice.socket.destroy();
  const raw = new RawSocket(gateway.port, { path: `${path}&sid=${await begin(gateway)}&sid=x` });
  raw.send(frame('2probe'));
  assert.ok(await raw.hears('3probe'));
  raw.send(frame('5'), frame('x'.repeat(60_000), { length: 65_000 }));
  assert.ok(await raw.ends());
  assert.equal((await scrape(gateway.url)).get('taskcast_connections_refused_total', { reason: 'unauthenticated_bytes' }), 1);
}));

test('a polling client with a token has two bodies read at once, not hundreds', () => withGateway({}, async (gateway) => {
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
  await until(() => read.every(({ status }) => status === 200), 'the two are read to their end');
  assert.equal((await post('42["resync_requested",{}]')).status, 200, 'and make room');
  for (const raw of raws) raw.close();
}));

test('somebody whose bodies do not end takes the task API from nobody', () => withGateway({}, async (gateway) => {
  const [greedy, alice] = [await member('greedy'), await member('alice')];
  const head = `POST /api/tasks HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer ${greedy}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`;
  // More than are worked on at once.
  const raws = Array.from({ length: 600 }, () => new Raw(gateway.port));
  await Promise.all(raws.map((raw) => raw.write(head)));
  await until(() => raws.filter(({ status }) => status === 503).length === 600 - 64, () => `all but 64 are refused: ${raws.map(({ status }) => status)}`);
  await createTask(gateway.url, alice);
  for (const raw of raws) raw.close();
  // Once they are gone, there is room again.
  await until(() => createTask(gateway.url, greedy), 'its next one is read');
}));

test('a long token is let in, and then long messages, by every transport', () => withGateway({}, async (gateway) => {
  const token = await sign({ sub: 'alice', orgId: 'acme', groups: 'g'.repeat(5000) });
  for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
    const client = await Client.connect(gateway, token, { transports });
    if (transports.length === 2) await until(() => client.socket.io.engine.transport.name === 'websocket', 'it is upgraded');
    // More than a newcomer may send in its life.
    for (let n = 0; n < 3; n += 1) {
      const answer = await client.ask('resync_requested', { taskIds: Array.from({ length: 1000 }, (_, i) => `${'t'.repeat(40)}${i}`) });
      assert.ok(answer.ok || answer.error, 'it is answered');
    }
    assert.deepEqual(client.disconnects, []);
    client.close();
  }
  assert.equal(await refused(gateway, 'x'.repeat(12_000)), 'unauthorized');
}));

test('who sends too many messages is told, and then cut; others are not concerned', () => withGateway({}, async (gateway) => {
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

/** Memory that is the process's own: pages of files come and go as the machine likes. */
const anonymous = (gateway) => 1024 * Number(/RssAnon:\s*(\d+) kB/.exec(readFileSync(`/proc/${gateway.child.pid}/status`, 'utf8'))[1]);

test('whatever a connection without a token sends, it takes little memory', async () => {
  const KB = 1024;
  const many = 150;
  const names = ['says nothing', 'a head that never ends', 'a POST that never ends', 'a long message, but for its end', 'fragments', 'a WebSocket that says nothing'];
  const taken = await Promise.all(names.map(async (name) => {
    const gateway = await Gateway.start();
    try {
      const before = anonymous(gateway);
      let most = before;
      const raws = Array.from({ length: many }, () => new Raw(gateway.port));
      await Promise.all(raws.map((raw) => TRICKS[name].run(raw)));
      await until(() => {
        most = Math.max(most, anonymous(gateway));
        return raws.every(({ open }) => !open);
      }, `${name}: all are closed`, 60_000);
      return [name, Math.round((most - before) / many / KB)];
    } finally {
      await gateway.stop();
    }
  }));
  // An unoptimised build on a busy machine; what a release takes is measured by `make abuse`.
  assert.deepEqual(taken.filter(([, each]) => each > 128), [], JSON.stringify(taken));
  console.log(taken.map(([name, each]) => `${name}: ${each} KiB`).join(', '));
});

test('a storm of handshakes and of heads that never end leaves clients alone, and nothing behind', () => withGateway({ HANDSHAKE_RATE_PER_SECOND: '10' }, async (gateway) => {
  const alice = await member('alice');
  const { taskId } = await createTask(gateway.url, alice);
  const witness = await Client.connect(gateway, alice);
  await witness.join(taskId);
  const before = anonymous(gateway);
  const slow = Array.from({ length: 300 }, () => new Raw(gateway.port));
  await Promise.all(slow.map((raw) => TRICKS['a head that never ends'].run(raw)));
  const answers = (await Promise.all(Array.from({ length: 20 }, () => statuses(gateway, 75)))).flat();
  assert.ok(count(answers, 429) > 0 && count(answers, 200) >= 200, `${count(answers, 200)} were let in`);
  await patchTask(gateway.url, await pipeline(), taskId, { title: 'meanwhile' });
  await witness.saw('task:updated', ({ changed }) => changed.title === 'meanwhile');
  await until(async () => (await scrape(gateway.url)).get('taskcast_unauthenticated_connections') === 0, 'all sessions are gone');
  await until(() => slow.every(({ open }) => !open), 'and all connections');
  await until(() => anonymous(gateway) < before + 24 * 1024 * 1024, () => `memory comes back: ${before}, now ${anonymous(gateway)}`, 60_000);
  assert.deepEqual(witness.disconnects, []);
  witness.close();
}));
