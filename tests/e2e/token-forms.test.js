// Unusual but valid tokens of real issuers and clients: fractional times, numeric users, nested claims, a scheme in front, and long tokens.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { Client, refused } from './support/client.js';
import { Gateway, withGateway } from './support/gateway.js';
import { api, createTask } from './support/http.js';
import { test } from './support/scenario.js';
import { member, now, sign } from './support/tokens.js';
import { until } from './support/until.js';

const TRANSPORTS = [['websocket'], ['polling'], ['polling', 'websocket']];

let gateway;

before(async () => {
  gateway = await Gateway.start();
});
after(() => gateway?.stop());

/** A valid token of about this length, and not longer. */
async function ofLength(length, claims = { sub: 'alice', orgId: 'acme' }) {
  const empty = (await sign({ ...claims, padding: '' })).length;
  const token = await sign({ ...claims, padding: 'x'.repeat(Math.floor(((length - empty) * 3) / 4) - 2) });
  assert.ok(token.length <= length && token.length > length - 16, String(token.length));
  return token;
}

/** Asserts that a token is accepted as `auth.token`, in a header, by `auth:refresh`, and over HTTP. */
async function accepted(at, token) {
  for (const transports of TRANSPORTS) {
    (await Client.connect(at, token, { transports })).close();
    const client = await Client.connect(at, undefined, { transports, extraHeaders: { Authorization: `Bearer ${token}` } });
    if (transports.length === 2) await until(() => client.socket.io.engine.transport.name === 'websocket', 'it is upgraded');
    assert.equal((await client.ask('auth:refresh', { token })).ok, true, transports.join());
    assert.deepEqual(client.disconnects, []);
    client.close();
  }
  const answer = await api(at.url, 'GET', '/api/tasks', { token });
  assert.equal(answer.status, 200, answer.text);
}

test('a token may have Bearer in front of it, in auth.token and in auth:refresh', async () => {
  const token = await member('alice');
  for (const written of [`Bearer ${token}`, `bearer   ${token}`, ` BEARER\t${token} `]) {
    for (const transports of TRANSPORTS) {
      const client = await Client.connect(gateway, written, { transports });
      assert.equal((await client.ask('auth:refresh', { token: written })).ok, true, written);
      client.close();
    }
    const answer = await api(gateway.url, 'GET', '/api/tasks', { headers: { authorization: written } });
    assert.equal(answer.status, 200, written);
  }
  for (const wrong of ['Bearer', 'Bearer ', `Basic ${token}`, `Bearer${token}`, `Bearer Bearer ${token}`, `Bearer ${token} x`, `${token} Bearer`]) {
    assert.equal(await refused(gateway, wrong), 'unauthorized', wrong);
  }
});

test('exp and nbf may have fractions, and a session ends at the exact time', async () => {
  await accepted(gateway, await sign({ sub: 'alice', orgId: 'acme', exp: now() + 3600.75, nbf: now() - 0.5, iat: now() - 0.25 }));
  assert.equal(await refused(gateway, await sign({ sub: 'alice', exp: now() - 0.5 })), 'token_expired');
  const client = await Client.connect(gateway, await member('alice', 'acme', { exp: now() + 3.5 }));
  await client.disconnected();
  assert.equal(client.all('error').at(-1)?.code, 'token_expired');
  client.close();
});

test('a numeric user is the same user as its decimal string, and no other', async () => {
  const [number, text, other] = await Promise.all([42, '42', 43].map((sub) => sign({ sub })));
  await accepted(gateway, number);
  const { taskId } = await createTask(gateway.url, number, { isPrivate: true });
  for (const [token, status] of [[number, 200], [text, 200], [other, 404]]) {
    assert.equal((await api(gateway.url, 'GET', `/api/tasks/${taskId}`, { token })).status, status);
  }
  const admin = await sign({ sub: 'root', scope: 'admin' });
  const client = await Client.connect(gateway, number);
  const gone = client.disconnected();
  const answer = await api(gateway.url, 'POST', '/api/admin/disconnect', { token: admin, body: { userId: '42' } });
  assert.deepEqual([answer.status, answer.body.userId], [200, '42']);
  await gone;
  client.close();
});

test('claim settings may name a path', () => withGateway({ JWT_USER_CLAIM: 'user.id', JWT_ORG_CLAIM: 'user.org.id', JWT_NAME_CLAIM: 'user.name' }, async (own) => {
  const user = { id: 'bob', name: 'Bob', org: { id: 'acme' } };
  const token = await sign({ sub: 'nobody', user });
  await accepted(own, token);
  const task = await createTask(own.url, token);
  assert.deepEqual([task.createdBy, task.orgId, task.creator ?? task.creatorName], ['bob', 'acme', 'Bob']);
  assert.equal((await createTask(own.url, await sign({ user, 'user.id': 'carol' }))).createdBy, 'carol');
  for (const wrong of [{ sub: 'bob' }, { user: 'bob' }, { user: [user] }, { user: { ID: 'bob' } }]) {
    assert.equal(await refused(own, await sign(wrong)), 'unauthorized', JSON.stringify(wrong));
  }
}));

test('a token that is too long is refused with a code on every transport, and the log names its length and the setting', () => withGateway({}, async (own) => {
  for (const length of [8193, 12_000, 16_384]) {
    const token = 'x'.repeat(length);
    for (const transports of TRANSPORTS) {
      assert.equal(await refused(own, token, { transports }), 'unauthorized', `${length} by ${transports}`);
      const extraHeaders = { Authorization: `Bearer ${token}` };
      assert.equal(await refused(own, undefined, { transports, extraHeaders }), 'unauthorized', `${length} in a header by ${transports}`);
    }
    const answer = await api(own.url, 'GET', '/api/tasks', { token });
    assert.deepEqual([answer.status, answer.body.error.code], [401, 'unauthorized']);
    assert.match(answer.body.error.message, /more than 8192 bytes/);
  }
  const client = await Client.connect(own, await member('alice'));
  const renewed = await client.ask('auth:refresh', { token: 'x'.repeat(20_000) });
  assert.equal(renewed.error.code, 'unauthorized');
  assert.deepEqual(client.disconnects, []);
  client.close();
  await own.waitForLog(/refused a connection.*\n/);
  const told = own.output.split('\n').filter((line) => line.includes('refused a connection'));
  assert.equal(told.length, 1, 'logged once a minute');
  assert.match(told[0], /has 8193 bytes and MAX_TOKEN_BYTES is 8192/);
}));

test('a request far above the token limit is refused because of its headers or body, and the log names the setting', () => withGateway({}, async (own) => {
  const answer = await api(own.url, 'GET', '/api/tasks', { token: 'x'.repeat(100_000) });
  assert.equal(answer.status, 431);
  await own.waitForLog(/its line and headers are too long.*MAX_TOKEN_BYTES/);
  const sid = JSON.parse((await (await fetch(`${own.url}/socket.io/?EIO=4&transport=polling`)).text()).slice(1)).sid;
  const body = `40${JSON.stringify({ token: 'x'.repeat(30_000) })}`;
  const post = await fetch(`${own.url}/socket.io/?EIO=4&transport=polling&sid=${sid}`, { method: 'POST', headers: { 'content-type': 'text/plain' }, body });
  assert.deepEqual([post.status, (await post.json()).error.code], [413, 'payload_too_large']);
  await own.waitForLog(new RegExp(`body is too large; MAX_TOKEN_BYTES raises this limit.*bytes\\W+${body.length}\\b`));
}));

test('MAX_TOKEN_BYTES allows long tokens everywhere, whatever MAX_MESSAGE_BYTES is', async () => {
  for (const MAX_MESSAGE_BYTES of ['1024', '65536']) {
    await withGateway({ MAX_TOKEN_BYTES: '65536', MAX_MESSAGE_BYTES }, async (own) => {
      await accepted(own, await ofLength(65_536));
      assert.equal(await refused(own, 'x'.repeat(65_537)), 'unauthorized');
      assert.equal(await refused(own, 'x'.repeat(72_000), { transports: ['polling'] }), 'unauthorized');
      const client = await Client.connect(own, await member('alice'));
      const gone = client.disconnected();
      client.socket.emit('nothing:known', 'x'.repeat(65_536));
      await gone;
      // Messages without a token have their own limit.
      await own.waitForLog(/a message longer than MAX_MESSAGE_BYTES/);
      client.close();
    });
  }
  await withGateway({ MAX_TOKEN_BYTES: '1024' }, async (own) => {
    await accepted(own, await ofLength(1024));
    assert.equal(await refused(own, await ofLength(2000)), 'unauthorized');
  });
});
