// Each invalid payload gets an error code, by acknowledgement or by event, and the connection stays open.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { createTask } from './support/http.js';
import { PLAIN } from './support/plain-websocket.js';
import { member } from './support/tokens.js';
import { test } from './support/scenario.js';
import { once } from './support/until.js';

const NOTHING = Symbol('no payload');
const NUL = 'a\u0000b';
const LONG = 'x'.repeat(10_240);
const ONE_TASK = '0123456789abcdef01234567';

/** Payloads that are not objects. No event accepts them. */
const NO_OBJECT = { null: null, 'a number': 7, 'a string': 'text', 'a boolean': true, 'an array': [], 'an array of objects': [{ taskId: ONE_TASK }] };
/** JSON has no binary values. */
const BINARY = PLAIN ? {} : {
  'a Buffer': Buffer.from('bytes'),
  'an ArrayBuffer': new Uint8Array([1, 2, 3]).buffer,
};
const binaryUnder = (key) => Object.fromEntries(Object.entries(BINARY).map(([name, value]) => [`${name} as ${key}`, { [key]: value }]));

/** Payloads whose `key` is not a non-empty string. */
const noText = (key) => Object.fromEntries(
  Object.entries({ missing: undefined, null: null, number: 7, boolean: false, operator: { $ne: null }, array: ['a'], 'array in array': [[]], empty: '' })
    .map(([name, value]) => [`${key}: ${name}`, { [key]: value }]),
);

const TASK_ID = { ...NO_OBJECT, 'no payload': NOTHING, ...noText('taskId'), ...BINARY, ...binaryUnder('taskId') };
/** These are strings, so either code is right. Only an error may follow. */
const ODD_TASK_ID = { 'a long id': { taskId: LONG }, 'a NUL in it': { taskId: NUL }, 'an operator as text': { taskId: '{"$ne":null}' }, 'a room name': { taskId: 'task:*' } };
/** Where the payload is optional, the gateway may accept null as no payload. */
const { null: _, ...NEITHER_OBJECT_NOR_NONE } = NO_OBJECT;
const DASHBOARD = { ...NEITHER_OBJECT_NOR_NONE, ...BINARY };
const RESYNC = {
  ...NEITHER_OBJECT_NOR_NONE,
  ...BINARY,
  'taskIds: a string': { taskIds: ONE_TASK },
  'taskIds: an object': { taskIds: { $ne: null } },
  'taskIds: numbers': { taskIds: [1, 2] },
  'taskIds: null among them': { taskIds: [ONE_TASK, null] },
  'taskIds: an operator among them': { taskIds: [{ $ne: null }] },
  'taskIds: an empty one': { taskIds: [''] },
  'taskIds: binary among them': { taskIds: [Buffer.from('x')] },
  'dashboard: a string': { dashboard: 'yes' },
  'dashboard: an object': { dashboard: { $ne: false } },
  'since: a number': { taskIds: [ONE_TASK], since: 1 },
  'since: an operator': { taskIds: [ONE_TASK], since: { $gt: '' } },
  'since: no position': { taskIds: [ONE_TASK], since: 'yesterday' },
  'since: long': { taskIds: [ONE_TASK], since: LONG },
  'since: NUL': { taskIds: [ONE_TASK], since: NUL },
  'since of no room': { since: `${'0'.repeat(16)}-000000-000000` },
  'since of two rooms': { taskIds: [ONE_TASK], dashboard: true, since: `${'0'.repeat(16)}-000000-000000` },
  'since of two tasks': { taskIds: [ONE_TASK, `${ONE_TASK.slice(0, -1)}0`], since: `${'0'.repeat(16)}-000000-000000` },
};
const REFRESH = { ...NO_OBJECT, 'no payload': NOTHING, ...noText('token'), ...BINARY, ...binaryUnder('token') };

const CASES = [
  ['task:join', TASK_ID, ['invalid_payload']],
  ['task:join', ODD_TASK_ID, ['invalid_payload', 'not_found']],
  ['task:leave', TASK_ID, ['invalid_payload']],
  ['dashboard:join', DASHBOARD, ['invalid_payload']],
  ['dashboard:leave', DASHBOARD, ['invalid_payload']],
  ['resync_requested', RESYNC, ['invalid_payload']],
  ['auth:refresh', REFRESH, ['invalid_payload']],
];

let gateway;
let alice;
let task;

before(async () => {
  // This file does not test the rate limit.
  gateway = await Gateway.start({ JOIN_RATE_PER_SECOND: '10000' });
  alice = await member('alice');
  task = await createTask(gateway.url, alice);
});
after(() => gateway?.stop());

for (const transports of PLAIN ? [['ws']] : [['websocket'], ['polling']]) {
  for (const [event, payloads, codes] of CASES) {
    test(`${event} over ${transports}: ${Object.keys(payloads).length} invalid payloads are refused (${codes})`, async () => {
      const client = await Client.connect(gateway, alice, { transports });
      const { id } = client.socket;
      for (const [name, payload] of Object.entries(payloads)) {
        const args = payload === NOTHING ? [] : [payload];
        const answer = await client.ask(event, ...args).catch((error) => assert.fail(`${name}: ${error.message}`));
        assert.equal(answer.ok, false, `${name}: ${JSON.stringify(answer)}`);
        assertRefusal(answer.error, event, codes, name);
        client.received.length = 0;
        client.socket.emit(event, ...args);
        assertRefusal(await client.waitForEvent('error'), event, codes, name);
        assert.equal(client.received.length, 1, `${name}: ${JSON.stringify(client.received)}`);
      }
      await assertAlive(client, id);
    });
  }
}

for (const depth of [60, 200, 5000]) {
  for (const [event, key] of [['task:join', 'taskId'], ['task:leave', 'taskId'], ['resync_requested', 'taskIds'], ['dashboard:join', null], ['auth:refresh', 'token']]) {
    test(`${event} with ${depth} nested levels is refused`, async () => {
      const client = await Client.connect(gateway, alice);
      const { id } = client.socket;
      for (const nested of ['['.repeat(depth) + ']'.repeat(depth), '{"a":'.repeat(depth) + '1' + '}'.repeat(depth)]) {
        const payload = key === null ? (nested.startsWith('[') ? nested : `[${nested}]`) : `{"${key}":${nested}}`;
        const answer = await client.askText(event, payload);
        assert.equal(answer.ok, false, JSON.stringify(answer));
        assertRefusal(answer.error, event, ['invalid_payload'], `${depth} levels`);
        client.received.length = 0;
        client.emitText(event, payload);
        assertRefusal(await client.waitForEvent('error'), event, ['invalid_payload'], `${depth} levels`);
      }
      await assertAlive(client, id);
    });
  }
}

test('extra arguments and unknown events leave the connection open', async () => {
  const client = await Client.connect(gateway, alice);
  const { id } = client.socket;
  client.socket.emit('task:unheard_of', { taskId: task.taskId });
  client.socket.emit('', {});
  client.socket.emit('constructor', {});
  client.socket.emit('__proto__', {});
  client.socket.emit(LONG, {});
  client.socket.emit('error', { code: 'x' });
  client.socket.emit('task:deleted', { taskId: task.taskId });
  await client.ask('task:join', { taskId: task.taskId }, { taskId: 7 }, 'more');
  await assertAlive(client, id);
});

test('a resync of more tasks than the room limit leaves the connection open', async () => {
  const client = await Client.connect(gateway, alice);
  const { id } = client.socket;
  const taskIds = Array.from({ length: 2000 }, (_, n) => n.toString(16).padStart(24, '0'));
  const answer = await client.ask('resync_requested', { taskIds });
  if (answer.ok) assert.deepEqual([...answer.gone].sort(), taskIds);
  else assert.ok(['invalid_payload', 'too_many_rooms'].includes(answer.error.code), JSON.stringify(answer));
  await assertAlive(client, id);
});

test('packets that are not valid Socket.IO affect no other client', async () => {
  const bystander = await Client.connect(gateway, alice);
  const { id } = bystander.socket;
  const packets = ['2', '2[', '2["task:join"', '2{}', '2[]', '2[1]', '2[null]', '2[[]]', '', '9', 'x', '0', '0{"token":1}', '0/admin,{}',
    '1', '3', '31', '31[', '5', '51-["task:join",{"_placeholder":true,"num":0}]', '59999999999-["x"]', '51-["task:join",{"_placeholder":true,"num":9}]',
    '299999999999999999999999["task:leave",{}]', '2\u0000', '\u{1f600}', '2["\ud83d"]', '6'];
  for (const packet of packets) {
    const client = new Client(gateway, alice);
    await client.connected();
    client.socket.io.engine.write(packet);
    client.socket.io.engine.write(Buffer.from([0xff, 0x00, 0xfe]));
    // The gateway either disconnects this client or still serves it.
    const answered = client.ask('task:leave', { taskId: task.taskId }).catch(() => null);
    await Promise.race([answered, once(client.socket, 'disconnect').catch(() => null)]);
    client.close();
  }
  await assertAlive(bystander, id);
});

function assertRefusal(error, event, codes, name) {
  assert.ok(codes.includes(error?.code), `${name}: ${JSON.stringify(error)}`);
  assert.equal(error.event, event, name);
  assert.equal(typeof error.message, 'string', name);
  assert.ok(error.message.length > 0 && error.message.length < 500, `${name}: ${error.message.length} characters`);
  assert.deepEqual(Object.keys(error).sort(), ['code', 'event', 'message'], name);
}

/** Asserts that the connection is still the same and still works. */
async function assertAlive(client, id) {
  await client.join(task.taskId);
  assert.equal(client.socket.id, id);
  assert.deepEqual(client.disconnects, []);
  client.close();
}
