// Hundreds of thousands of malformed packets over WebSocket and polling, generated from one seed. The gateway does not panic, leaves
// nothing behind, and serves a well-behaved client all the time.
import assert from 'node:assert/strict';

import { Client } from '../e2e/support/client.js';
import { Gateway } from '../e2e/support/gateway.js';
import { createTask, patchTask } from '../e2e/support/http.js';
import { scrape } from '../e2e/support/metrics.js';
import { member, pipeline, sign } from '../e2e/support/tokens.js';
import { settles, until } from '../e2e/support/until.js';
import { attackByPolling, attackByWebSocket, hangUp } from './support/attacker.js';
import { Dice, Packets } from './support/mutator.js';

const SEED = Number(process.env.TASKCAST_CHAOS_SEED ?? Math.floor(Math.random() * 2 ** 31));
const ATTACKERS = 48;
const USERS = 40;
/** The most packets of one connection. */
const MAX_PACKETS = 120;
/** The short heartbeat closes connections that attackers leave open. */
const ENV = {
  JOIN_RATE_PER_SECOND: '10000', MAX_CONNECTIONS_PER_USER: '1000', PING_INTERVAL: '2s', PING_TIMEOUT: '3s',
  HANDSHAKE_RATE_PER_SECOND: '0', MAX_UNAUTHENTICATED_PER_ADDRESS: '0',
};
/** Metrics that must return to their earlier values. */
const LEVELS = [
  ['taskcast_connections', { transport: 'websocket' }], ['taskcast_connections', { transport: 'polling' }], ['taskcast_users'],
  ['taskcast_rooms', { room: 'task' }], ['taskcast_rooms', { room: 'dashboard' }], ['taskcast_room_members', { room: 'task' }], ['taskcast_room_members', { room: 'dashboard' }],
  ['taskcast_clients_behind'], ['taskcast_packets_behind'], ['taskcast_client_requests_waiting'],
];
/** Metrics that also count the scrape's own connection and current work of the store. */
const NEARLY = [['taskcast_tcp_connections'], ['process_open_fds'], ['taskcast_runtime_tasks']];

async function attack(context, budget) {
  const dice = new Dice(SEED);
  const gateway = await Gateway.start(ENV);
  const held = [];
  try {
    const alice = await member('alice');
    const writer = await pipeline();
    const { taskId } = await createTask(gateway.url, alice);
    const hidden = await createTask(gateway.url, alice, { isPrivate: true });
    const witnesses = [await Client.connect(gateway, alice), await Client.connect(gateway, alice, { transports: ['polling'] })];
    for (const witness of witnesses) {
      await witness.join(taskId);
      await witness.joinDashboard();
    }
    const before = await scrape(gateway.url);

    const wrong = [await sign({ sub: 'mallory' }, { key: new Uint8Array(32) }), 'a.b.c', '', 'x'.repeat(9000)];
    const tokens = await Promise.all(Array.from({ length: USERS }, (_, n) => member(`mallory-${n}`, n % 2 ? 'acme' : 'globex')));
    const packets = new Packets(dice, { ids: [taskId, hidden.taskId, '0'.repeat(24), 'x', '🦀'], tokens: [...tokens, ...wrong] });
    const sids = [];
    let [sent, readPackets, connections, writes, attacking] = [0, 0, 0, 0, true];
    const writing = (async () => {
      while (attacking) {
        writes += 1;
        await patchTask(gateway.url, writer, taskId, { prNumber: writes });
      }
    })();
    const started = Date.now();
    const attacker = async () => {
      while (sent < budget) {
        const connection = { port: gateway.port, dice, packets, token: dice.once(20) ? dice.pick(wrong) : dice.pick(tokens), maxPackets: MAX_PACKETS, held, sids };
        const result = await (dice.once(6) ? attackByPolling(connection) : attackByWebSocket(connection));
        sent += result.sent;
        readPackets += result.wasRead ? result.sent : 0;
        connections += 1;
      }
    };
    await Promise.all([...Array.from({ length: ATTACKERS }, attacker)]);
    const seconds = (Date.now() - started) / 1000;
    attacking = false;
    await writing;

    // The well-behaved clients received each change once and in order, and were never disconnected.
    for (const witness of witnesses) {
      await witness.waitForEvent('task:updated', ({ changed }) => changed.prNumber === writes, 60_000);
      assert.deepEqual(witness.all('task:updated').map(({ changed }) => changed.prNumber), Array.from({ length: writes }, (_, n) => n + 1));
      assert.deepEqual(witness.disconnects, []);
      witness.assertInOrder();
    }
    assert.equal(gateway.exit, undefined, 'the gateway is running');

    held.forEach((socket) => socket.destroy());
    hangUp();
    await settles(async () => {
      const now = await scrape(gateway.url);
      const current = (levels) => levels.map(([name, labels]) => [name, labels, now.get(name, labels)]);
      const had = (levels) => levels.map(([name, labels]) => [name, labels, before.get(name, labels)]);
      assert.deepEqual(current(LEVELS), had(LEVELS), 'resources were left behind');
      for (const [[name, , is], [, , was]] of current(NEARLY).map((one, n) => [one, had(NEARLY)[n]])) assert.ok(is <= was + 8, `${name}: ${was} before, ${is} after`);
    }, 90_000);
    const after = await scrape(gateway.url);
    assert.equal(after.get('taskcast_panics_total'), 0);
    const answered = after.since(before, 'taskcast_deliveries_total');
    assert.ok(readPackets > sent / 10, `only ${readPackets} of ${sent} packets were sent on connections that were read to the end; the rest proves nothing`);
    await until(() => gateway.health().then(({ status }) => status === 'ok'), 'health is ok');
    const megabytes = (page) => Math.round(page.get('process_resident_memory_bytes') / 2 ** 20);
    context.say(`seed ${SEED}: ${sent} packets in ${connections} connections, ${readPackets} packets in connections that were read to the end, ${answered} packets in answer; ${megabytes(before)} MiB before, ${megabytes(after)} after`);
    return { writes, rate: Math.round(sent / seconds), clients: witnesses.length, lost: 0, doubled: 0, outOfOrder: 0, note: `${sent} packets` };
  } catch (error) {
    throw new Error(`seed ${SEED} (TASKCAST_CHAOS_SEED): ${error.message}`, { cause: error });
  } finally {
    held.forEach((socket) => socket.destroy());
    await gateway.stop();
  }
}

export const scenarios = [{
  name: 'mutated packets',
  short: (context) => attack(context, 100_000),
  long: (context) => attack(context, 1_000_000),
}];
