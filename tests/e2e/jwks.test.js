// Keys from a key server: fetched, rotated, and unreachable. A valid client is never refused because of a temporary failure.
import assert from 'node:assert/strict';

import { Client, refused } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { api } from './support/http.js';
import { CA, KeyServer, signer } from './support/key-server.js';
import { scrape } from './support/metrics.js';
import { binary } from './support/paths.js';
import { freePort } from './support/ports.js';
import { run } from './support/processes.js';
import { test } from './support/scenario.js';
import { until } from './support/until.js';

const settings = (server) => ({ JWT_SECRET: undefined, JWT_JWKS_URL: server.url });
/** The options of the existing client, which reconnects by itself. */
const STUBBORN = { reconnection: true, reconnectionAttempts: 5 };

/** A reconnecting client that records each refusal. */
function stubborn(gateway, token, options = {}) {
  const client = new Client(gateway, token, { ...STUBBORN, ...options });
  client.refusals = [];
  client.socket.on('connect_error', (error) => client.refusals.push(error.message));
  return client;
}

/**
 * Repeats `ask` until the answer is final. HTTP requests and `auth:refresh` wait at most 6 s for a key fetch. They are repeated 3 s before
 * the next fetch, so that its result answers them. 6 s before would be too early: the wait could end during the fetch, and the next
 * fetch would be a minute later.
 */
async function inTheEnd(ask) {
  const deadline = Date.now() + 90_000;
  for (;;) {
    const { code, retryAfterMs = 0 } = await ask();
    if (!['unavailable', 'rate_limited'].includes(code)) return code;
    assert.ok(Date.now() < deadline, `the answer is still ${code}`);
    await new Promise((resolve) => setTimeout(resolve, Math.max(1000, retryAfterMs - 3000)));
  }
}

const list = (gateway, token) => api(gateway.url, 'GET', '/api/tasks', { token });

test('tokens of every kind of key are accepted, with keys from a TLS server that SSL_CERT_FILE trusts', async () => {
  const server = await KeyServer.start({ secure: true });
  const signers = await Promise.all([signer('RS256', 'r'), signer('ES256', 'e'), signer('EdDSA', 'd')]);
  server.keys = [{ kty: 'oct', kid: 'r', k: 'c2VjcmV0' }, ...signers.map(({ jwk }) => jwk)];
  const gateway = await Gateway.start({ ...settings(server), SSL_CERT_FILE: CA });
  try {
    for (const { alg, token, jwk } of signers) {
      for (const header of [{}, { kid: undefined }]) {
        const made = await token({}, header);
        (await Client.connect(gateway, made)).close();
        assert.equal((await list(gateway, made)).status, 200, alg);
      }
      // Two tokens with a known key id: one is signed with another kind of key, the other with an unpublished key.
      const [other] = signers.filter((one) => one.alg !== alg);
      assert.equal(await refused(gateway, await other.token({}, { kid: jwk.kid })), 'unauthorized', alg);
      assert.equal(await refused(gateway, await (await signer(alg, jwk.kid)).token()), 'unauthorized', alg);
    }
    const page = await scrape(gateway.url);
    assert.equal(page.get('taskcast_key_fetches_total', { outcome: 'fetched' }), 1);
    assert.ok(page.get('taskcast_keys_age_seconds') >= 0);
    const check = (env) => run(binary(), ['check'], { cwd: gateway.cwd, env: { PATH: process.env.PATH, HOST: '127.0.0.1', JWT_JWKS_URL: server.url, DATA_DIR: `${gateway.cwd}/other`, ...env } });
    const good = await check({ SSL_CERT_FILE: CA });
    assert.equal(good.code, 0, good.stdout);
    assert.match(good.stdout, /ok: .*JWT_JWKS_URL \(3 keys for RS256, ES256, EdDSA\)/);
    assert.match(good.stdout, /warn: key 1 of JWT_JWKS_URL is ignored: it is a shared secret/);
    const stranger = await check({});
    assert.equal(stranger.code, 1, 'the certificate is not trusted');
    assert.match(stranger.stdout, /fail: .*JWT_JWKS_URL/);
  } finally {
    await gateway.stop();
    await server.close();
  }
});

test('clients wait while the key server is unreachable, at the start and later', async () => {
  const server = await KeyServer.start();
  const [first, second] = await Promise.all([signer('ES256', 'first'), signer('ES256', 'second')]);
  server.keys = [first.jwk];
  await server.close();
  const gateway = new Gateway(await freePort(), settings(server));
  gateway.spawn();
  try {
    await until(async () => (await gateway.health()).status === 'degraded', 'it serves, without keys');
    const token = await first.token();
    const clients = [stubborn(gateway, token), stubborn(gateway, token, { transports: ['polling'] })];
    const answer = await list(gateway, token);
    assert.deepEqual([answer.status, answer.body.error.code], [503, 'unavailable']);
    assert.ok(Number(answer.headers.get('retry-after')) >= 1);
    await until(async () => (await scrape(gateway.url)).get('taskcast_handshakes_total', { outcome: 'unavailable' }) >= 2, 'both were closed, not refused', 60_000);
    await server.listen();
    await until(() => clients.every(({ socket }) => socket.connected), 'both are accepted once the key server is back', 60_000);
    assert.deepEqual(clients.flatMap(({ refusals }) => refusals), []);
    assert.equal((await gateway.health()).status, 'ok');

    server.keys = undefined;
    const newcomer = stubborn(gateway, await second.token());
    (await Client.connect(gateway, token)).close();
    assert.equal((await list(gateway, token)).status, 200);
    await until(async () => (await scrape(gateway.url)).get('taskcast_key_fetches_total', { outcome: 'status' }) >= 1, 'the key server was asked for the other key');
    server.keys = [];
    await until(async () => (await scrape(gateway.url)).get('taskcast_key_fetches_total', { outcome: 'unusable' }) >= 1, 'an empty set', 60_000);
    (await Client.connect(gateway, token)).close();
    server.keys = [first.jwk, second.jwk];
    await until(() => newcomer.socket.connected, 'the new key is fetched', 60_000);
    assert.deepEqual(newcomer.refusals, []);
  } finally {
    await gateway.stop();
    await server.close();
  }
});

test('keys are rotated during a flood of invented key ids: one fetch a minute, and every valid client is accepted', async () => {
  const server = await KeyServer.start();
  const [first, second, third] = await Promise.all([signer('ES256', 'first'), signer('EdDSA', 'second'), signer('RS256', 'third')]);
  server.keys = [first.jwk];
  const gateway = await Gateway.start(settings(server));
  try {
    const member = await Client.connect(gateway, await first.token());
    server.keys = [first.jwk, second.jwk];
    (await Client.connect(gateway, await second.token())).close();
    const names = ['../../../../dev/null', "' OR 1=1 --", 'first\0', 'first ', 'FIRST', '', '/etc/passwd', 'http://127.0.0.1/keys', 'x'.repeat(4000)];
    const madeUp = await Promise.all(names.map((kid, n) => first.token({ sub: `user-${n}` }, { kid })));
    // Each token uses its own session, because the requests of one session wait for each other.
    const sessions = await Promise.all(names.map(async (_, n) => Client.connect(gateway, await first.token({ sub: `user-${n}` }))));
    assert.equal(server.requestCount, 2, 'the second key was fetched when it was needed');

    server.keys = [second.jwk, third.jwk];
    const waiting = stubborn(gateway, await third.token());
    const answers = Promise.all(madeUp.map((token) => refused(gateway, token)));
    await until(async () => (await scrape(gateway.url)).get('taskcast_tokens_waiting') === names.length + 1, 'all of them wait');
    const early = await list(gateway, await third.token());
    assert.deepEqual([early.status, early.body.error.code], [503, 'unavailable']);
    const retryAfter = Number(early.headers.get('retry-after'));
    assert.ok(retryAfter > 6 && retryAfter <= 60, String(retryAfter));
    const refresh = await member.ask('auth:refresh', { token: await third.token() });
    assert.equal(refresh.error?.code, 'unavailable', JSON.stringify(refresh));
    assert.ok(refresh.error.retryAfterMs > 6000, JSON.stringify(refresh));
    const overHttp = Promise.all(madeUp.map((token) => inTheEnd(async () => {
      const { body, headers } = await list(gateway, token);
      return { code: body.error?.code, retryAfterMs: 1000 * Number(headers.get('retry-after')) };
    })));
    const refreshed = Promise.all(madeUp.map((token, n) => inTheEnd(async () => (await sessions[n].ask('auth:refresh', { token })).error ?? {})));
    (await Client.connect(gateway, await first.token())).close();
    assert.equal(server.requestCount, 2, 'no second fetch within the minute');

    await until(() => waiting.socket.connected, 'the third key is fetched', 80_000);
    assert.deepEqual([waiting.refusals, waiting.disconnects], [[], []], 'the client waited and was not refused');
    for (const told of [await answers, await overHttp, await refreshed]) assert.deepEqual([...new Set(told)], ['unauthorized']);
    assert.deepEqual(sessions.flatMap(({ disconnects }) => disconnects), [], 'the sessions continue with their present tokens');
    assert.equal(server.requestCount, 3);
    assert.equal((await member.ask('auth:refresh', { token: await third.token() })).ok, true);
    assert.equal((await list(gateway, await first.token())).status, 503, 'the key was removed, but a newer set may have it again');
  } finally {
    await gateway.stop();
    await server.close();
  }
});

test('invented key ids take no slots from users whose keys are known', async () => {
  const server = await KeyServer.start();
  const known = await signer('ES256', 'known');
  server.keys = [known.jwk];
  const gateway = await Gateway.start(settings(server));
  try {
    const [token, madeUp] = [await known.token(), await known.token({}, { kid: 'made up' })];
    // From now on, a token with an unknown key waits for the next fetch.
    server.keys = undefined;
    let over = false;
    // This is more than the gateway processes at once.
    const crowd = Promise.all(Array.from({ length: 700 }, async () => {
      while (!over) {
        const { status } = await list(gateway, madeUp);
        assert.equal(status, 503);
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }));
    const waiting = async () => (await scrape(gateway.url)).get('taskcast_tokens_waiting');
    await until(async () => (await waiting()) >= 60, 'the number of waiting tokens reaches its limit', 60_000);
    for (let n = 0; n < 20; n += 1) assert.equal((await list(gateway, token)).status, 200);
    over = true;
    await crowd;
  } finally {
    await gateway.stop();
    await server.close();
  }
});
