// Engine.IO as no client of ours speaks it: what comes at the wrong moment, too early, or by the wrong transport.
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
/** An event that is answered `43<id>[…]`. */
const ask = (id) => `42${id}["task:leave",{"taskId":"x"}]`;
const answered = (id) => `43${id}[{"ok":true}]`;
const post = (gateway, sid, body) => fetch(`${gateway.url}${POLLING}&sid=${sid}`, { method: 'POST', body });
const poll = (gateway, sid) => fetch(`${gateway.url}${POLLING}&sid=${sid}`);

/** The id of a polling connection that has just begun. */
const begin = async (gateway) => JSON.parse((await (await fetch(gateway.url + POLLING)).text()).slice(1)).sid;

/** A WebSocket with a session, and its Engine.IO id. */
async function joined(gateway, user) {
  const raw = new RawSocket(gateway.port);
  assert.ok(await raw.hears('"pingInterval"'));
  const { sid } = JSON.parse(/\{"maxPayload.*?\}|\{"sid".*?\}/.exec(raw.text)[0]);
  raw.send(frame(await connect(user)));
  assert.ok(await raw.hears('40{"sid"'));
  return { raw, sid };
}

test('however much comes in one segment behind a WebSocket\'s request, all of it is answered at once', () => withGateway({}, async (gateway) => {
  const asked = Array.from({ length: 150 }, (_, id) => frame(ask(id)));
  const raw = new RawSocket(gateway.port, { behind: Buffer.concat([frame(await connect('alice')), ...asked]) });
  assert.ok(await raw.hears(answered(149), 10_000), raw.text.slice(-100));
  raw.socket.destroy();
}));

test('clients that never stop talking leave the others their turn', () => withGateway({}, async (gateway) => {
  const witness = await Client.connect(gateway, await member('witness'));
  const loud = await Promise.all(Array.from({ length: 8 }, () => joined(gateway, 'loud')));
  const chatter = Buffer.concat(Array.from({ length: 20_000 }, () => frame('3')));
  let quiet = false;
  const talk = async ({ raw: { socket } }) => {
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
    loud.forEach(({ raw }) => raw.socket.destroy());
    await Promise.race([Promise.all(talks), new Promise((resolve) => setTimeout(resolve, 1000))]);
    witness.close();
  }
}));

test('who answered while the process stood still is not taken for dead', () => withGateway({ PING_INTERVAL: '1s', PING_TIMEOUT: '1s' }, async (gateway) => {
  const all = await Promise.all(Array.from({ length: 12 }, (_, n) => joined(gateway, `user-${n}`)));
  const stopped = new Promise((resolve) => {
    for (const { raw } of all) {
      raw.socket.on('data', (data) => {
        if (!data.toString('latin1').includes(HEARTBEAT)) return;
        gateway.child.kill('SIGSTOP');
        resolve();
        raw.send(frame('3'));
      });
    }
  });
  await stopped;
  await new Promise((resolve) => setTimeout(resolve, 1500));
  all.forEach(({ raw }) => raw.socket.removeAllListeners('data'));
  all.forEach(({ raw }) => raw.socket.on('data', (data) => (raw.text += data.toString('latin1'))));
  gateway.child.kill('SIGCONT');
  all.forEach(({ raw }) => raw.send(frame('3'), frame(ask(1))));
  const heard = await Promise.all(all.map(({ raw }) => raw.hears(answered(1), 5000)));
  assert.deepEqual(heard, all.map(() => true));
  all.forEach(({ raw }) => raw.socket.destroy());
}));
