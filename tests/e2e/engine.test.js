// Engine.IO packets that official clients never send: too early, at the wrong moment, or over the wrong transport.
import assert from 'node:assert/strict';

import { Client } from './support/client.js';
import { withGateway } from './support/gateway.js';
import { RawSocket, frame } from './support/raw.js';
import { test } from './support/scenario.js';
import { member } from './support/tokens.js';
import { until } from './support/until.js';

const POLLING = '/socket.io/?EIO=4&transport=polling';
const WEBSOCKET = '/socket.io/?EIO=4&transport=websocket';
const HEARTBEAT = '\x81\x012';

const connect = async (user) => `40${JSON.stringify({ token: await member(user) })}`;
/** An event with the acknowledgement id `id`. */
const ask = (id) => `42${id}["task:leave",{"taskId":"x"}]`;
const answered = (id) => `43${id}[{"ok":true}]`;
const post = (gateway, sid, body) => fetch(`${gateway.url}${POLLING}&sid=${sid}`, { method: 'POST', body });
const poll = (gateway, sid) => fetch(`${gateway.url}${POLLING}&sid=${sid}`);

/** The id of a polling connection that has just begun. */
const begin = async (gateway) => JSON.parse((await (await fetch(gateway.url + POLLING)).text()).slice(1)).sid;

/** A WebSocket whose client is authenticated. */
async function joined(gateway, user) {
  const raw = new RawSocket(gateway.port);
  assert.ok(await raw.waitForText('"pingInterval"'));
  raw.send(frame(await connect(user)));
  assert.ok(await raw.waitForText('40{"sid"'));
  return raw;
}

test('all frames in the segment of a WebSocket\'s upgrade request are answered at once, however many they are', () => withGateway({}, async (gateway) => {
  const asked = Array.from({ length: 150 }, (_, id) => frame(ask(id)));
  const raw = new RawSocket(gateway.port, { behind: Buffer.concat([frame(await connect('alice')), ...asked]) });
  assert.ok(await raw.waitForText(answered(149), 10_000), raw.text.slice(-100));
  raw.socket.destroy();
}));

test('clients that never stop sending do not block other clients', () => withGateway({}, async (gateway) => {
  const witness = await Client.connect(gateway, await member('witness'));
  const loud = await Promise.all(Array.from({ length: 8 }, () => joined(gateway, 'loud')));
  const chatter = Buffer.concat(Array.from({ length: 20_000 }, () => frame('3')));
  let quiet = false;
  const talk = async ({ socket }) => {
    while (!quiet && !socket.destroyed) await new Promise((resolve) => socket.write(chatter, resolve));
  };
  const talks = loud.map(talk);
  try {
    for (let n = 0; n < 20; n += 1) {
      await until(async () => (await witness.ask('task:leave', { taskId: 'x' })).ok, 'it is answered');
    }
    assert.deepEqual(witness.disconnects, []);
  } finally {
    quiet = true;
    loud.forEach(({ socket }) => socket.destroy());
    await Promise.race([Promise.all(talks), new Promise((resolve) => setTimeout(resolve, 1000))]);
    witness.close();
  }
}));

test('a client that answers a ping while the process is stopped is not disconnected', () => withGateway({ PING_INTERVAL: '3s', PING_TIMEOUT: '2s' }, async (gateway) => {
  const all = await Promise.all(Array.from({ length: 12 }, (_, n) => joined(gateway, `user-${n}`)));
  let running = true;
  const stopped = new Promise((resolve) => {
    for (const raw of all) {
      raw.socket.on('data', (data) => {
        if (!data.toString('latin1').includes(HEARTBEAT)) return;
        if (running) gateway.child.kill('SIGSTOP');
        running = false;
        raw.send(frame('3'));
        resolve();
      });
    }
  });
  await stopped;
  // This is longer than PING_TIMEOUT.
  await new Promise((resolve) => setTimeout(resolve, 2500));
  gateway.child.kill('SIGCONT');
  all.forEach((raw) => raw.send(frame(ask(1))));
  const heard = await Promise.all(all.map((raw) => raw.waitForText(answered(1), 10_000)));
  assert.deepEqual(heard, all.map(() => true));
  all.forEach((raw) => raw.socket.destroy());
}));

test('a second WebSocket is closed while the session upgrades to the first one', () => withGateway({}, async (gateway) => {
  const sid = await begin(gateway);
  const first = new RawSocket(gateway.port, { path: `${WEBSOCKET}&sid=${sid}` });
  // The gateway answers WebSocket pings during the upgrade, too.
  first.send(Buffer.concat([frame('?', { opcode: 9 }), frame('2probe')]));
  assert.ok(await first.waitForText('3probe'));
  assert.ok(first.text.includes('\x8a\x01?'), 'a pong');
  const second = new RawSocket(gateway.port, { path: `${WEBSOCKET}&sid=${sid}` });
  second.send(frame('2probe'));
  assert.ok(await second.waitForClose());
  first.send(frame('5'), frame(await connect('alice')));
  assert.ok(await first.waitForText('40{"sid"'));
  // This is more than a client without a token may send.
  for (let id = 0; id < 5; id += 1) {
    first.send(frame(`42["x","${'x'.repeat(10_000)}"]`), frame(ask(id)));
    assert.ok(await first.waitForText(answered(id)));
  }
  first.socket.destroy();
}));

test('polling continues as usual while a WebSocket of the session sends no probe', () => withGateway({}, async (gateway) => {
  const sid = await begin(gateway);
  const waiting = poll(gateway, sid).then((answer) => answer.text());
  const raw = new RawSocket(gateway.port, { path: `${WEBSOCKET}&sid=${sid}` });
  assert.ok(await raw.waitForText('HTTP/1.1 101'));
  assert.equal(await Promise.race([waiting, raw.waitForText('3probe', 500)]), false, 'nothing');
  await post(gateway, sid, await connect('alice'));
  assert.match(await waiting, /^40\{"sid"/);
  // The WebSocket can still complete the upgrade.
  raw.send(frame('2probe'));
  assert.ok(await raw.waitForText('3probe'));
  assert.equal(await (await poll(gateway, sid)).text(), '6');
  raw.send(frame('5'), frame(ask(1)));
  assert.ok(await raw.waitForText(answered(1)));
  raw.socket.destroy();
}));
