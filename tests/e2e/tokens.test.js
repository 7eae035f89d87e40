// Forged tokens: the handshake, the HTTP API and `auth:refresh` refuse each of them, and the connection stays open.
import assert from 'node:assert/strict';
import { createHmac, randomBytes, sign as signBytes } from 'node:crypto';
import { after, before } from 'node:test';

import { exportSPKI } from 'jose';

import { Client, refused } from './support/client.js';
import { Gateway, JWT_SECRET } from './support/gateway.js';
import { api } from './support/http.js';
import { KeyServer, signer } from './support/key-server.js';
import { test } from './support/scenario.js';
import { member, now, sign } from './support/tokens.js';

const base64 = (data) => Buffer.from(data).toString('base64url');
const claims = () => ({ sub: 'alice', orgId: 'acme', iat: now(), exp: now() + 3600 });

/** Sign bytes with the right key, by algorithm. */
const HMAC = { alg: 'HS256', sign: (message) => createHmac('sha256', JWT_SECRET).update(message).digest() };
const SIGNED = {
  RS256: (key) => (message) => signBytes('sha256', message, key),
  ES256: (key) => (message) => signBytes('sha256', message, { key, dsaEncoding: 'ieee-p1363' }),
  EdDSA: (key) => (message) => signBytes(null, message, key),
};
const hmacWith = (secret) => (message) => createHmac('sha256', secret).update(message).digest();

/** A token with any header and payload, signed with `sign`. */
function forge(header, payload, sign) {
  const text = (value) => (typeof value === 'string' ? value : JSON.stringify(value));
  const message = `${base64(text(header))}.${base64(text(payload))}`;
  return `${message}.${base64(sign(Buffer.from(message)))}`;
}

/** One entry for each kind of key: its gateway, a function that signs correctly, and the public forms of the key. */
let doors;
let server;

before(async () => {
  const signers = Object.fromEntries(await Promise.all(['RS256', 'ES256', 'EdDSA'].map(async (alg) => [alg, await signer(alg, `key-${alg}`)])));
  server = await KeyServer.start();
  server.keys = Object.values(signers).map(({ jwk }) => jwk);
  const fetched = await Gateway.start({ JWT_SECRET: undefined, JWT_JWKS_URL: server.url });
  doors = [{ name: 'HS256', gateway: await Gateway.start(), ...HMAC, kid: undefined, publics: [''] }];
  for (const [alg, { publicKey, privateKey, jwk }] of Object.entries(signers)) {
    const pem = await exportSPKI(publicKey);
    const der = Buffer.from(pem.replace(/-----[^-]+-----|\n/g, ''), 'base64');
    const publics = [pem, pem.trim(), der, JSON.stringify(jwk), jwk.n ?? jwk.x, Buffer.from(jwk.n ?? jwk.x, 'base64url'), ''];
    const one = { alg, sign: SIGNED[alg](privateKey), publics };
    doors.push({ name: `${alg} by PEM`, gateway: await Gateway.start({ JWT_SECRET: undefined, JWT_PUBLIC_KEY: pem }), ...one, kid: undefined });
    doors.push({ name: `${alg} by JWKS`, gateway: fetched, ...one, kid: jwk.kid });
  }
});
after(async () => {
  await Promise.all([...new Set((doors ?? []).map(({ gateway }) => gateway))].map((gateway) => gateway.stop()));
  await server?.close();
});

/** Asserts that the handshake, the HTTP API and `auth:refresh` of a session refuse the token. */
async function assertRefused({ name, gateway }, session, attack, token) {
  const what = `${name}: ${attack}`;
  const code = await refused(gateway, token);
  assert.ok(['unauthorized', 'token_expired'].includes(code), `${what}: ${code}`);
  const renewed = await session.ask('auth:refresh', { token });
  assert.ok(['unauthorized', 'token_expired', 'invalid_payload'].includes(renewed.error?.code), `${what}: ${JSON.stringify(renewed)}`);
  // A token that a header cannot carry is not sent over HTTP.
  if (/^[\x20-\x7e]+$/.test(token)) {
    const answer = await api(gateway.url, 'GET', '/api/tasks', { headers: { authorization: `Bearer ${token}` } });
    assert.equal(answer.status, 401, what);
  }
}

/** Defines a test: every gateway refuses each of these tokens, and accepts a valid one. */
function attacks(title, tokensOf) {
  test(title, async () => {
    await Promise.all(doors.map(async (door) => {
      const header = { alg: door.alg, typ: 'JWT', ...(door.kid ? { kid: door.kid } : {}) };
      // Each gateway has its own user, because the number of tokens a second of one user is limited.
      const right = (more = {}, head = {}) => forge({ ...header, ...head }, { ...claims(), sub: door.name, ...more }, door.sign);
      const session = await Client.connect(door.gateway, right());
      assert.equal((await api(door.gateway.url, 'GET', '/api/tasks', { token: right() })).status, 200, door.name);
      assert.equal((await session.ask('auth:refresh', { token: right() })).ok, true, door.name);
      for (const [attack, token] of tokensOf({ ...door, header, right })) await assertRefused(door, session, attack, token);
      assert.deepEqual(session.disconnects, [], door.name);
      session.close();
    }));
  });
}

attacks('alg none in any spelling, and algorithms that do not fit the key, are refused', ({ header, alg, sign, publics }) => [
  ...['none', 'None', 'NONE', 'nOnE', 'none ', ''].flatMap((none) => [
    [`alg ${none}, no signature`, forge({ ...header, alg: none }, claims(), () => '')],
    [`alg ${none}, the right signature`, forge({ ...header, alg: none }, claims(), sign)],
  ]),
  ...['HS256', 'HS384', 'HS512', 'RS256', 'RS384', 'RS512', 'PS256', 'ES256', 'ES384', 'ES512', 'ES256K', 'EdDSA', 'Ed25519', alg.toLowerCase()]
    .filter((other) => other !== alg).map((other) => [`alg ${other}`, forge({ ...header, alg: other }, claims(), sign)]),
  ...[undefined, null, 256, [alg], { alg }, true].map((odd) => [`alg ${JSON.stringify(odd)}`, forge({ ...header, alg: odd }, claims(), sign)]),
  ...publics.flatMap((secret, n) => ['HS256', alg].map((name) => [`the public key, form ${n}, as a secret, called ${name}`, forge({ ...header, alg: name }, claims(), hmacWith(secret))])),
]);

attacks('keys inside the token, and key ids that lead elsewhere, are refused', ({ header, right, alg, sign, kid }) => {
  const own = randomBytes(32);
  const brought = {
    jwk: { kty: 'oct', k: base64(own), alg }, jku: 'http://127.0.0.1:1/keys', x5u: 'http://127.0.0.1:1/cert', x5c: [base64('a certificate')], x5t: base64('x'),
  };
  return [
    ...Object.entries(brought).map(([name, value]) => [name, forge({ ...header, [name]: value }, claims(), hmacWith(own))]),
    ...Object.entries(brought).map(([name, value]) => [`${name}, as HS256`, forge({ ...header, alg: 'HS256', [name]: value }, claims(), hmacWith(own))]),
    ...[{}, [], 7, null, true, { $ne: null }].map((odd) => [`kid ${JSON.stringify(odd)}`, right({}, { kid: odd })]),
    ['a kid of 8 KiB', right({}, { kid: 'x'.repeat(8 * 1024) })],
    // With keys from a key server, these tokens wait for the next fetch; jwks.test.js tests them.
    ...(kid ? [] : ['../../../../dev/null', "' UNION SELECT ''; --", 'a\0b', '/etc/passwd', '']
      .flatMap((name) => [['', hmacWith('')], ['an attacker\'s', hmacWith(own)]].map(([whose, by]) => [`kid ${name}, ${whose} key`, forge({ ...header, kid: name }, claims(), by)]))),
    ['crit', right({}, { crit: ['exp'] })],
    ['an empty crit', right({}, { crit: [] })],
    ['an unknown crit', right({}, { crit: ['x'], x: 1 })],
    ['b64', right({}, { crit: ['b64'], b64: false })],
    ['b64 without crit', right({}, { b64: false })],
    ['a logout token', right({}, { typ: 'logout+jwt' })],
    ['a proof of possession', right({}, { typ: 'dpop+jwt' })],
    ['alg twice', forge(`{"alg":"none","alg":"${alg}"}`, claims(), sign)],
    ['alg twice, once escaped', forge(`{"\\u0061lg":"none","alg":"${alg}"${kid ? `,"kid":"${kid}"` : ''}}`, claims(), sign)],
    ['kid twice', forge(`{"alg":"${alg}","kid":"x","kid":"${kid}"}`, claims(), sign)],
  ];
});

attacks('invalid claims are refused', ({ header, right, sign }) => {
  const raw = (payload) => forge(header, payload, sign);
  const exp = now() + 3600;
  return [
    ...[undefined, null, String(exp), -1, -exp, 0, -0.5, now() - 0.5, now() / 1e3, now() - 1, exp * 1000, 2 ** 53, [exp], { exp }, true].map((value) => [`exp ${JSON.stringify(value)}`, right({ exp: value })]),
    ...['1e400', '1e12', '-1e400', '-1e300', '9'.repeat(400), 'NaN', 'Infinity', '0x7fffffff', '1.0', '1e9'].map((text) => [`exp ${text.slice(0, 20)}`, raw(`{"sub":"alice","exp":${text}}`)]),
    ['exp twice', raw(`{"sub":"alice","exp":1,"exp":${exp}}`)],
    ['sub twice', raw(`{"sub":"alice","sub":"root","exp":${exp}}`)],
    ['a name twice inside', raw(`{"sub":"alice","user":{"id":1,"id":2},"exp":${exp}}`)],
    ...['7.0', '7.5', '1e3', '-0', '18446744073709551616', '9'.repeat(30)].map((sub) => [`sub ${sub}`, raw(`{"sub":${sub},"exp":${exp}}`)]),
    ['sub twice, once escaped', raw(`{"sub":"alice","\\u0073ub":"root","exp":${exp}}`)],
    ...[undefined, null, '', {}, { id: 'alice' }, ['alice'], 7.5, true, 'a\nb', 'a\0', 'x'.repeat(300)].map((sub) => [`sub ${JSON.stringify(sub)?.slice(0, 20)}`, right({ sub })]),
    ['nbf in the future', right({ nbf: now() + 120 })],
    ['iat in the future', right({ iat: now() + 120 })],
    ['nbf as a text', right({ nbf: String(now()) })],
    ...['[]', '"alice"', 'null', '7', '', '{', `{"sub":"alice","exp":${exp}}x`, `{"sub":"alice","exp":${exp}`, `{"sub":"alice","exp":${exp},}`, '['.repeat(3000)].map((payload) => [`the payload ${payload.slice(0, 20)}`, raw(payload)]),
  ];
});

attacks('texts that are almost a token are refused', ({ right, alg, name }) => {
  const token = right();
  const [header, payload, signature] = token.split('.');
  const bytes = Buffer.from(signature, 'base64url');
  const signed = (altered) => `${header}.${payload}.${base64(altered)}`;
  // The last character has spare bits. With these bits set, another text stands for the same bytes.
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const loose = token.slice(0, -1) + alphabet[alphabet.indexOf(token.at(-1)) | 1];
  assert.notEqual(loose, token, name);
  return [
    ['nothing', ''], ['dots', '..'], ['more dots', '....'], ['two parts', `${header}.${payload}`], ['no signature', `${header}.${payload}.`],
    ['four parts', `${token}.${signature}`], ['five parts', `${header}..${payload}.${signature}.x`], ['a dot behind', `${token}.`], ['a dot before', `.${token}`],
    ['the payload twice', `${header}.${payload}.${payload}.${signature}`],
    ['padding', `${token}=`], ['padding of the header', `${header}=.${payload}.${signature}`],
    ['white space inside', `${header}. ${payload}.${signature}`], ['a line end inside', `${header}.${payload}\n.${signature}`],
    ['another scheme', `Basic ${token}`], ['a scheme twice', `Bearer Bearer ${token}`], ['JSON', JSON.stringify({ protected: header, payload, signature })],
    ['spare bits', loose],
    ['the other alphabet', `${header}.${payload}.${signature.slice(0, -2)}+/`],
    ['a NUL inside', `${header}.${payload}\0.${signature}`],
    ['a signature cut short', signed(bytes.subarray(0, -1))], ['half a signature', signed(bytes.subarray(0, bytes.length / 2))],
    ['a longer signature', signed(Buffer.concat([bytes, Buffer.of(0)]))], ['a zero before the signature', signed(Buffer.concat([Buffer.of(0), bytes]))],
    // CVE-2022-21449: r = s = 0 was accepted as a signature of every message.
    ['a signature of zeros', signed(Buffer.alloc(bytes.length))], ['of ones', signed(Buffer.alloc(bytes.length, 0xff))],
    ['halves swapped', signed(Buffer.concat([bytes.subarray(bytes.length / 2), bytes.subarray(0, bytes.length / 2)]))],
    ['one bit flipped', signed(Buffer.concat([bytes.subarray(0, -1), Buffer.of(bytes.at(-1) ^ 1)]))],
    ...(alg === 'ES256' ? [['a signature in DER', signed(der(bytes))], ['r and s of the curve\'s order', signed(Buffer.concat([ORDER, ORDER]))]] : []),
    ['9 KiB', token.replace('.', `.${'A'.repeat(9 * 1024)}`)],
  ];
});

const ORDER = Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551', 'hex');

/** The two numbers of an ECDSA signature in ASN.1 DER. */
function der(bytes) {
  const integer = (number) => Buffer.concat([Buffer.of(2, number.length + 1, 0), number]);
  const body = Buffer.concat([integer(bytes.subarray(0, 32)), integer(bytes.subarray(32))]);
  return Buffer.concat([Buffer.of(0x30, body.length), body]);
}

test('a token of a megabyte closes its connection and affects no other client', async () => {
  const parts = (await member('bob')).split('.');
  // One text is not a token at all; the other is a token with a huge key id.
  const huge = ['x'.repeat(1024 * 1024), [base64(JSON.stringify({ alg: 'ES256', kid: '../'.repeat(256 * 1024) })), parts[1], parts[2]].join('.')];
  for (const { gateway, right } of [doors[0], doors.at(-1)].map((door) => ({ ...door, right: forge({ alg: door.alg, kid: door.kid }, claims(), door.sign) }))) {
    const client = await Client.connect(gateway, right);
    for (const token of huge) {
      const attacker = new Client(gateway, token);
      attacker.socket.on('connect', () => assert.fail('the client was accepted'));
      await new Promise((resolve) => attacker.socket.io.engine.once('close', resolve));
      const answer = await api(gateway.url, 'GET', '/api/tasks', { token }).then(({ status }) => status, () => 'closed');
      assert.ok([400, 401, 431, 'closed'].includes(answer), String(answer));
      // As the next token of a session, the gateway refuses it or closes the connection because of its size.
      const session = await Client.connect(gateway, right);
      const renewed = await Promise.race([session.ask('auth:refresh', { token }), session.disconnected()]);
      assert.ok(['unauthorized', 'invalid_payload'].includes(renewed?.error?.code) || !session.socket.connected, JSON.stringify(renewed));
      session.close();
    }
    assert.equal((await client.ask('dashboard:join')).ok, true);
    client.close();
  }
});

test('issuer and audience must match exactly', async () => {
  const [issuer, audience] = ['https://id.example.org', 'taskcast'];
  const gateway = await Gateway.start({ JWT_ISSUER: issuer, JWT_AUDIENCE: audience });
  try {
    const make = (more) => sign({ sub: 'alice', iss: issuer, aud: audience, ...more });
    for (const aud of [audience, [audience], ['other', audience]]) (await Client.connect(gateway, await make({ aud }))).close();
    const wrong = [
      ...[undefined, null, '', `${issuer}/`, `${issuer}.evil.example`, issuer.slice(0, -1), issuer.toUpperCase(), [issuer], { iss: issuer }, ` ${issuer}`].map((iss) => ({ iss })),
      ...[undefined, null, '', [], ['other'], [[audience]], `${audience}2`, 'task', 'Taskcast', `${audience} other`, { [audience]: true }, 7, [null, 7]].map((aud) => ({ aud })),
    ];
    for (const more of wrong) {
      const token = await make(more);
      assert.equal(await refused(gateway, token), 'unauthorized', JSON.stringify(more));
      assert.equal((await api(gateway.url, 'GET', '/api/tasks', { token })).status, 401, JSON.stringify(more));
    }
  } finally {
    await gateway.stop();
  }
});
