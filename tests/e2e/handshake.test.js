// Which tokens and origins the gateway accepts, and how long a session lasts.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { exportSPKI, generateKeyPair, UnsecuredJWT } from 'jose';
import WebSocket from 'ws';

import { Client, refused } from './support/client.js';
import { Gateway, withGateway } from './support/gateway.js';
import { api, createTask, patchTask } from './support/http.js';
import { PLAIN } from './support/plain-websocket.js';
import { freePort } from './support/ports.js';
import { member, now, sign } from './support/tokens.js';
import { test } from './support/scenario.js';
import { once, until } from './support/until.js';

const CONFIGURED = 'https://tasks.example.org';
const WRONG_SECRET = new TextEncoder().encode('another-secret-another-secret-another-0');

/** The statuses of a GET and of an upgrade whose origin is allowed. `/ws` accepts only upgrades. */
const OPEN = { get: PLAIN ? 426 : 200, upgrade: 101 };
const [GET, UPGRADE] = PLAIN ? ['/ws', '/ws'] : ['/socket.io/?EIO=4&transport=polling', '/socket.io/?EIO=4&transport=websocket'];

let gateway;

before(async () => {
  gateway = await Gateway.start({ WEBSOCKET_CORS_ORIGIN: `${CONFIGURED},http://localhost:5173` });
});
after(() => gateway?.stop());

test('invalid and expired tokens are refused', async () => {
  const claims = { sub: 'alice', orgId: 'acme' };
  const valid = await sign(claims);
  const [head, body, signature] = valid.split('.');
  const cases = {
    'no token': [undefined, 'unauthorized'],
    'not a token': ['x.y.z', 'unauthorized'],
    'not even text': [{ $ne: null }, 'unauthorized'],
    'another secret': [await sign(claims, { key: WRONG_SECRET }), 'unauthorized'],
    'no signature': [`${head}.${body}.`, 'unauthorized'],
    'a changed body': [`${head}.${btoa(JSON.stringify({ ...claims, exp: now() + 60 })).replace(/=+$/, '')}.${signature}`, 'unauthorized'],
    'alg none': [new UnsecuredJWT({ ...claims, exp: now() + 60 }).encode(), 'unauthorized'],
    'no exp': [await sign({ ...claims, exp: undefined }), 'unauthorized'],
    'no sub': [await sign({ orgId: 'acme' }), 'unauthorized'],
    'not yet valid': [await sign({ ...claims, nbf: now() + 120 }), 'unauthorized'],
    'expired a second ago': [await sign({ ...claims, exp: now() - 1 }), 'token_expired'],
  };
  for (const [name, [token, code]] of Object.entries(cases)) {
    assert.equal(await refused(gateway, token), code, name);
  }
});

test('a token within the leeway of nbf and iat, and a token in the header, are accepted', async () => {
  (await Client.connect(gateway, await sign({ sub: 'alice', orgId: 'acme', nbf: now() + 10, iat: now() + 10 }))).close();
  for (const transports of [['websocket'], ['polling']]) {
    const extraHeaders = { Authorization: `Bearer ${await member('alice')}` };
    (await Client.connect(gateway, undefined, { transports, extraHeaders })).close();
  }
});

test('a token in the query string is refused', async () => {
  const token = await member('alice');
  for (const transports of [['websocket'], ['polling']]) {
    const client = new Client(gateway, undefined, { transports, query: { token } });
    client.socket.on('connect', () => assert.fail('the client was accepted'));
    await once(client.socket, 'connect_error');
    client.close();
  }
});

test('the session ends when its token expires', async () => {
  const client = await Client.connect(gateway, await member('alice', 'acme', { exp: now() + 3 }));
  await client.joinDashboard();
  const reason = await client.disconnected();
  assert.equal(client.all('error').at(-1)?.code, 'token_expired');
  assert.equal(reason, 'transport close', 'clients reconnect by themselves after this reason');
  client.socket.connect();
  assert.equal((await once(client.socket, 'connect_error')).message, 'token_expired');
  client.close();
});

test('auth:refresh extends the session, for the same user', async () => {
  const short = now() + 4;
  const client = await Client.connect(gateway, await member('alice', 'acme', { exp: short }));
  await client.joinDashboard();
  const other = await client.ask('auth:refresh', { token: await member('bob') });
  assert.equal(other.ok, false, 'the token of another user');
  const expired = await client.ask('auth:refresh', { token: await member('alice', 'acme', { exp: now() - 1 }) });
  assert.deepEqual([expired.ok, expired.error.code], [false, 'token_expired']);
  const wrong = await client.ask('auth:refresh', { token: await sign({ sub: 'alice', orgId: 'acme' }, { key: WRONG_SECRET }) });
  assert.equal(wrong.ok, false, 'another secret');
  assert.equal((await client.ask('auth:refresh', { token: await member('alice') })).ok, true);
  await until(() => now() > short + 1, 'the first token has expired');
  const task = await createTask(gateway.url, await member('alice'), { title: 'After the refresh' });
  await client.waitForEvent('task:created', ({ taskId }) => taskId === task.taskId);
  assert.deepEqual(client.disconnects, []);
  client.close();
});

test('Origin: configured origins, the gateway\'s own host, and clients without Origin are accepted', async () => {
  const own = gateway.url;
  for (const origin of [CONFIGURED, 'http://localhost:5173', own, undefined]) {
    assert.deepEqual(await knocks(origin), OPEN, String(origin));
    for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
      const extraHeaders = origin === undefined ? {} : { Origin: origin };
      (await Client.connect(gateway, await member('alice'), { transports, extraHeaders })).close();
    }
  }
});

test('Origin: anything else is 403, on every kind of request', async () => {
  const others = ['https://evil.example', 'null', 'http://localhost:51730', 'https://localhost:5173',
    `${CONFIGURED}.evil.example`, `https://127.0.0.1:${gateway.port}`, 'http://127.0.0.1:1'];
  for (const origin of others) assert.deepEqual(await knocks(origin), { get: 403, upgrade: 403 }, origin);

  const opened = await (await fetch(`${gateway.url}/socket.io/?EIO=4&transport=polling`)).text();
  const { sid } = JSON.parse(opened.slice(1));
  const post = (headers) => fetch(`${gateway.url}/socket.io/?EIO=4&transport=polling&sid=${sid}`, {
    method: 'POST', body: '3', headers: { 'content-type': 'text/plain', ...headers },
  });
  assert.equal((await post({ origin: 'https://evil.example' })).status, 403);
  assert.equal((await post({ origin: CONFIGURED })).status, 200);
});

test('CORS: a configured origin may read the answers, another one may not', async () => {
  for (const path of ['/socket.io/?EIO=4&transport=polling', '/api/tasks']) {
    const allowed = await fetch(gateway.url + path, { headers: { origin: CONFIGURED } });
    assert.equal(allowed.headers.get('access-control-allow-origin'), CONFIGURED, path);
    const foreign = await fetch(gateway.url + path, { headers: { origin: 'https://evil.example' } });
    assert.equal(foreign.headers.get('access-control-allow-origin'), null, path);
  }
  const preflight = await fetch(`${gateway.url}/api/tasks`, {
    method: 'OPTIONS',
    headers: { origin: CONFIGURED, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,content-type' },
  });
  assert.ok(preflight.ok, String(preflight.status));
  assert.equal(preflight.headers.get('access-control-allow-origin'), CONFIGURED);
  assert.match(preflight.headers.get('access-control-allow-headers'), /authorization/i);
});

test('CORS: a preflight of an allowed origin gets the headers that it asks for, on every route; others get nothing', async () => {
  const asked = 'authorization,baggage,sentry-trace,traceparent,x-tenant';
  for (const path of ['/socket.io/?EIO=4&transport=polling', '/socket.io?EIO=4&transport=polling', '/api/tasks']) {
    const ask = (origin) => fetch(gateway.url + path, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': asked, 'access-control-request-private-network': 'true' },
    });
    const allowed = await ask(CONFIGURED);
    assert.ok(allowed.ok, `${path}: ${allowed.status}`);
    assert.equal(allowed.headers.get('access-control-allow-origin'), CONFIGURED, path);
    assert.equal(allowed.headers.get('access-control-allow-headers'), asked, path);
    assert.equal(allowed.headers.get('access-control-allow-private-network'), 'true', path);
    assert.match(allowed.headers.get('access-control-allow-methods'), /POST/, path);
    for (const name of ['Origin', 'Access-Control-Request-Headers']) assert.match(allowed.headers.get('vary'), new RegExp(name), path);
    for (const origin of ['https://evil.example', 'null', `${CONFIGURED}.evil.example`]) {
      const told = [...(await ask(origin)).headers.keys()].filter((name) => name.startsWith('access-control-'));
      assert.deepEqual(told, [], `${path} ${origin}`);
    }
  }
  for (const path of ['/socket.io/?EIO=4&transport=polling', '/api/tasks']) {
    const { headers } = await fetch(gateway.url + path, { headers: { origin: CONFIGURED } });
    assert.equal(headers.get('access-control-expose-headers'), 'x-request-id,retry-after,location', path);
  }
});

test('Origin: native clients, which derive it from the URL, are accepted in every spelling of an allowed origin', async () => {
  const host = `127.0.0.1:${gateway.port}`;
  for (const origin of [`ws://${host}`, `HTTP://${host}`, CONFIGURED.replace('https', 'wss'), `${CONFIGURED}:443`, CONFIGURED.toUpperCase()]) {
    assert.deepEqual(await knocks(origin), OPEN, origin);
  }
  for (const origin of [`wss://${host}`, `https://${host}`, CONFIGURED.replace('https', 'ws'), CONFIGURED.replace('https', 'http'), `${CONFIGURED}:80`]) {
    assert.deepEqual(await knocks(origin), { get: 403, upgrade: 403 }, origin);
  }
});

test('Origin: the scheme from a trusted proxy counts, in every form that proxies write', () => withGateway({ TRUSTED_PROXIES: '127.0.0.1,10.0.0.0/8' }, async (proxied) => {
  const host = { 'x-forwarded-host': 'gate.test' };
  const encrypted = [
    ...['https', 'wss', 'WSS', 'https,http', 'https, http', 'wss,http', 'http,https'].map((proto) => ({ ...host, 'x-forwarded-proto': proto })),
    ...['for=198.51.100.7;proto=https;host=gate.test', 'For="[2001:db8::7]:4711";Host="gate.test";Proto="wss"',
      'for=198.51.100.7;proto=https;host=gate.test, for=10.1.1.1;proto=http;host=inner'].map((forwarded) => ({ forwarded })),
  ];
  for (const headers of encrypted) {
    const shown = JSON.stringify(headers);
    for (const origin of ['https://gate.test', 'wss://gate.test', 'https://gate.test:443']) {
      assert.deepEqual(await knocks(origin, headers, proxied), OPEN, `${origin} ${shown}`);
    }
    for (const origin of ['http://gate.test', 'ws://gate.test', 'https://evil.test', 'https://inner']) {
      assert.deepEqual(await knocks(origin, headers, proxied), { get: 403, upgrade: 403 }, `${origin} ${shown}`);
    }
    // The gateway ignores the headers of a proxy that is not in TRUSTED_PROXIES.
    assert.deepEqual(await knocks('https://gate.test', headers), { get: 403, upgrade: 403 }, shown);
  }
  for (const proto of ['http', 'ws', 'http,ws']) {
    const headers = { ...host, 'x-forwarded-proto': proto };
    assert.deepEqual(await knocks('http://gate.test', headers, proxied), OPEN, proto);
    assert.deepEqual(await knocks('https://gate.test', headers, proxied), { get: 403, upgrade: 403 }, proto);
  }
}));

test('Origin: null, file:// and app schemes are accepted only when configured, and the log warns about null and file://', () => withGateway(
  { WEBSOCKET_CORS_ORIGIN: 'null,file://,capacitor://localhost,ionic://localhost,app://-' },
  async (app) => {
    for (const origin of ['null', 'file://', 'capacitor://localhost', 'ionic://localhost', 'app://-']) {
      assert.deepEqual(await knocks(origin, {}, app), OPEN, origin);
      const answer = await fetch(`${app.url}/api/tasks`, { headers: { origin } });
      assert.equal(answer.headers.get('access-control-allow-origin'), origin);
    }
    for (const origin of ['file://host', 'capacitor://other', 'https://localhost', 'http://null']) {
      assert.deepEqual(await knocks(origin, {}, app), { get: 403, upgrade: 403 }, origin);
    }
    await app.waitForLog(/WEBSOCKET_CORS_ORIGIN has null: every sandboxed frame/);
    await app.waitForLog(/WEBSOCKET_CORS_ORIGIN has file:\/\//);
  },
).then(() => assert.ok(!gateway.output.includes('WEBSOCKET_CORS_ORIGIN has'), 'no warning without them')));

const KEY_KINDS = [
  ['RS256', 'RS256', {}],
  ['ES256', 'ES256', {}],
  ['EdDSA', 'EdDSA', { crv: 'Ed25519' }],
];
for (const [name, alg, options] of KEY_KINDS) {
  test(`a gateway with a public key: ${name}`, async () => {
    const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true, ...options });
    const pem = await exportSPKI(publicKey);
    const keyed = new Gateway(await freePort(), { JWT_SECRET: undefined });
    const file = join(keyed.cwd, 'jwt.pem');
    writeFileSync(file, pem);
    // ES256 uses the PEM text itself, the other kinds a file.
    keyed.env.JWT_PUBLIC_KEY = alg === 'ES256' ? pem : `@${file}`;
    await keyed.launch();
    try {
      const claims = { sub: 'alice', orgId: 'acme' };
      const token = await sign(claims, { key: privateKey, alg });
      const client = await Client.connect(keyed, token);
      const task = await createTask(keyed.url, token);
      await client.join(task.taskId);
      client.close();
      // An attacker signs with the public key as if it were a shared secret.
      assert.equal(await refused(keyed, await sign(claims, { key: new TextEncoder().encode(pem) })), 'unauthorized');
      const stranger = await generateKeyPair(alg, { extractable: true, ...options });
      assert.equal(await refused(keyed, await sign(claims, { key: stranger.privateKey, alg })), 'unauthorized');
    } finally {
      await keyed.stop();
    }
  });
}

test('issuer, audience and claim names are configurable', async () => {
  const strict = await Gateway.start({
    JWT_ISSUER: 'https://id.example.org', JWT_AUDIENCE: 'taskcast',
    JWT_USER_CLAIM: 'uid', JWT_ORG_CLAIM: 'tenant', JWT_NAME_CLAIM: 'nick',
  });
  try {
    const good = { uid: 'u1', tenant: 'acme', nick: 'Ada', scope: 'tasks:write', iss: 'https://id.example.org', aud: 'taskcast' };
    const token = await sign(good);
    const task = await createTask(strict.url, token);
    assert.deepEqual([task.createdBy, task.orgId, task.creator], ['u1', 'acme', 'Ada']);
    (await Client.connect(strict, await sign({ ...good, aud: ['other', 'taskcast'] }))).close();
    for (const bad of [{ iss: 'https://evil.example' }, { iss: undefined }, { aud: 'other' }, { aud: undefined }, { uid: undefined }]) {
      const refusedToken = await sign({ ...good, ...bad });
      assert.equal(await refused(strict, refusedToken), 'unauthorized', JSON.stringify(bad));
      assert.equal((await api(strict.url, 'GET', '/api/tasks', { token: refusedToken })).status, 401, JSON.stringify(bad));
    }
  } finally {
    await strict.stop();
  }
});

test('a token without an organisation gets the default organisation', async () => {
  const shared = await Gateway.start({ DEFAULT_ORG: 'everybody' });
  try {
    const [alice, bob] = await Promise.all([sign({ sub: 'alice', scope: 'tasks:write' }), sign({ sub: 'bob' })]);
    const task = await createTask(shared.url, alice, { title: 'For all' });
    const client = await Client.connect(shared, bob);
    await client.join(task.taskId);
    await patchTask(shared.url, alice, task.taskId, { status: 'coding' });
    await client.waitForEvent('task:coding');
    client.close();
  } finally {
    await shared.stop();
  }
});

test('health counts connections and users', async () => {
  const before = (await gateway.health()).websocket;
  const clients = await Promise.all([1, 2, 3].map(async () => Client.connect(gateway, await member('carol'))));
  const during = await until(async () => {
    const { websocket } = await gateway.health();
    return websocket.connections === before.connections + 3 && websocket;
  }, 'three more connections');
  assert.equal(during.connectedUsers, before.connectedUsers + 1);
  clients.forEach((client) => client.close());
  await until(async () => (await gateway.health()).websocket.connections === before.connections, 'all three are closed');
});

/** The statuses of a GET and of an upgrade with this Origin. */
async function knocks(origin, more = {}, at = gateway) {
  const headers = origin === undefined ? more : { origin, ...more };
  const get = await fetch(at.url + GET, { headers });
  await get.text();
  const upgrade = await new Promise((resolve, reject) => {
    const socket = new WebSocket(at.url.replace('http', 'ws') + UPGRADE, { headers });
    socket.once('open', () => (socket.close(), resolve(101)));
    socket.once('unexpected-response', (_request, response) => (response.resume(), resolve(response.statusCode)));
    socket.once('error', reject);
  });
  return { get: get.status, upgrade };
}
