// Known vulnerabilities of engine.io, socket.io, socket.io-parser, ws, engineioxide and socketioxide, replayed against the gateway. Each
// attack follows its advisory. Afterwards the gateway must still serve a client that was connected all the time.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { createServer } from 'node:tls';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { createTask, patchTask } from './support/http.js';
import { scrape } from './support/metrics.js';
import { binary, REPO } from './support/paths.js';
import { frame, RawSocket } from './support/raw.js';
import { test } from './support/scenario.js';
import { member, pipeline } from './support/tokens.js';
import { once, settles, until } from './support/until.js';

const POLLING = '/socket.io/?EIO=4&transport=polling';
const MIB = 2 ** 20;

let gateway;
let taskId;
let token;

before(async () => {
  gateway = await Gateway.start({ HANDSHAKE_RATE_PER_SECOND: '0', MAX_UNAUTHENTICATED_PER_ADDRESS: '0' });
  token = await member('mallory');
  ({ taskId } = await createTask(gateway.url, await member('alice')));
});
after(() => gateway?.stop());

const replay = (name, attack) => test(name, async () => {
  const bystander = await Client.connect(gateway, await member('alice'));
  await bystander.join(taskId);
  await attack();
  await patchTask(gateway.url, await pipeline(), taskId, { title: `after ${name}` });
  await bystander.waitForEvent('task:updated', ({ changed }) => changed.title === `after ${name}`);
  assert.deepEqual(bystander.disconnects, []);
  assert.equal((await scrape(gateway.url)).get('taskcast_panics_total'), 0);
});

const memory = async () => (await scrape(gateway.url)).get('process_resident_memory_bytes');

/** A WebSocket whose client is authenticated. */
async function session() {
  const raw = new RawSocket(gateway.port);
  raw.send(frame(`40${JSON.stringify({ token })}`));
  assert.ok(await raw.waitForText('40{"sid"'), raw.text);
  return raw;
}

/** The id of a new polling session. */
async function polling() {
  const answer = await fetch(gateway.url + POLLING);
  return JSON.parse((await answer.text()).slice(1)).sid;
}

/** Sends these packets and then a request: whether the request was answered, and everything that the client received. */
async function sends(...packets) {
  const raw = await session();
  raw.send(...packets.map((packet) => (Buffer.isBuffer(packet) ? packet : frame(packet))), frame('4277["dashboard:leave"]'));
  const answered = await raw.waitForText('4377[');
  raw.socket.destroy();
  return { answered, text: raw.text };
}

/** A client that is answered before its request is complete may see the connection close first. */
const REFUSED = [400, 413, 'ECONNRESET', 'EPIPE'];

/** The status of an HTTP request, or the error code when there is no answer. */
function ask(method, path, { body, headers } = {}) {
  return new Promise((resolve) => {
    const sent = request({ port: gateway.port, host: '127.0.0.1', method, path, headers }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    sent.on('error', ({ code }) => resolve(code));
    sent.end(body);
  });
}

// engine.io

replay('CVE-2020-36048: a POST of a huge declared length, or of many tiny packets', async () => {
  const sid = await polling();
  const declared = await ask('POST', `${POLLING}&sid=${sid}`, { headers: { 'content-length': 100_000_000 }, body: '4' });
  assert.ok(REFUSED.includes(declared), String(declared));
  const before = await memory();
  for (let n = 0; n < 10; n += 1) {
    const status = await ask('POST', `${POLLING}&sid=${await polling()}`, { body: `43[]${'\x1e43[]'.repeat(12_000)}` });
    assert.ok([200, ...REFUSED].includes(status), String(status));
  }
  // The old encoding put the length before each packet.
  const old = await ask('POST', `${POLLING}&sid=${await polling()}`, { body: '1:'.repeat(30_000) });
  assert.ok(REFUSED.includes(old), String(old));
  assert.ok(await memory() < before + 128 * MIB);
});

replay('CVE-2022-21676: an invalid frame right behind the upgrade', async () => {
  for (const options of [{ rsv: 3 }, { rsv: 7 }, { opcode: 5 }, { opcode: 15 }, { masked: false }]) {
    const raw = new RawSocket(gateway.port, { behind: frame('40', options) });
    assert.ok(await raw.waitForClose(), JSON.stringify(options));
  }
});

replay('CVE-2022-41940: a refused upgrade on a connection that the client has reset', async () => {
  for (const query of ['EIO=4&transport=nothing', 'EIO=3&transport=websocket', `EIO=4&transport=websocket&sid=${'A'.repeat(16)}`, 'transport=websocket', 'EIO=4&transport=websocket&sid=']) {
    for (let n = 0; n < 20; n += 1) {
      const raw = new RawSocket(gateway.port, { path: `/socket.io/?${query}` });
      await once(raw.socket, 'connect');
      raw.socket.resetAndDestroy();
    }
    const raw = new RawSocket(gateway.port, { path: `/socket.io/?${query}` });
    assert.ok(!(await raw.waitForText('"sid"', 500)), query);
    raw.socket.destroy();
  }
});

replay('CVE-2023-31125: query parameters that name an unknown transport', async () => {
  for (const transport of ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '', 'websocket%00', 'polling&transport=websocket']) {
    for (const sid of ['', '&sid=x', `&sid=${await polling()}`]) {
      const raw = new RawSocket(gateway.port, { path: `/socket.io/?EIO=4&transport=${transport}${sid}` });
      await raw.waitForText('\r\n\r\n', 5_000);
      assert.doesNotMatch(raw.text, /^HTTP\/1.1 5/);
      raw.socket.destroy();
    }
  }
});

replay('CVE-2016-10536 (engine.io-client): `taskcast tail` sends nothing to a server whose certificate is not trusted', async () => {
  const pem = (name) => readFileSync(join(REPO, 'src/auth/testdata', name));
  let spoken = 0;
  const server = createServer({ cert: pem('certificate.pem'), key: pem('p256.pem') }, (socket) => socket.on('data', () => (spoken += 1)));
  server.on('tlsClientError', () => {}).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `https://127.0.0.1:${server.address().port}`;
  const tail = execFile(binary(), ['tail', '--url', url, '--token', token], { cwd: gateway.cwd });
  let told = '';
  for (const output of [tail.stdout, tail.stderr]) output.on('data', (text) => (told += text));
  try {
    await until(() => /certificate/i.test(told), () => `tail reports the certificate: ${told}`);
    assert.equal(spoken, 0);
  } finally {
    tail.kill('SIGKILL');
    server.close();
  }
});

// socket.io

replay('CVE-2017-16031: session ids cannot be guessed', async () => {
  const ids = [];
  while (ids.length < 400) ids.push(...await Promise.all(Array.from({ length: 20 }, polling)));
  assert.equal(new Set(ids).size, ids.length);
  const bytes = ids.map((id) => Buffer.from(id, 'base64url'));
  assert.ok(bytes.every(({ length }) => length >= 8), ids[0]);
  // Each of 64 bits is set in about half of the ids. The tolerance is eight standard deviations.
  for (let bit = 0; bit < 64; bit += 1) {
    const set = bytes.filter((id) => id[bit >> 3] & (1 << (bit & 7))).length;
    assert.ok(Math.abs(set - 200) < 80, `bit ${bit} was set in ${set} of ${ids.length}`);
  }
});

replay('CVE-2020-28481: by default no other origin is accepted', async () => {
  for (const origin of ['https://evil.example', 'null', 'http://localhost:5173.evil.example']) {
    for (const [method, path] of [['GET', POLLING], ['POST', POLLING], ['OPTIONS', POLLING], ['GET', '/api/tasks']]) {
      const answer = await fetch(gateway.url + path, { method, headers: { origin, 'access-control-request-method': 'GET' } });
      assert.equal(answer.headers.get('access-control-allow-origin'), null, `${origin} ${method} ${path}`);
      if (method === 'GET' && path === POLLING) assert.equal(answer.status, 403);
    }
  }
});

replay('CVE-2024-38355: events with reserved names like error', async () => {
  for (const name of ['error', 'connect', 'disconnect', 'disconnecting', 'connection', 'newListener', 'removeListener', '__proto__']) {
    const { text, answered } = await sends(`425["${name}",{"message":"x"}]`);
    assert.ok(answered && text.includes('"invalid_payload"'), `${name}: ${text}`);
  }
});

// socket.io-parser

replay('CVE-2020-36049: a packet with a number of thousands of digits', async () => {
  for (const packet of [`45${'1'.repeat(60_000)}-["x"]`, `42${'1'.repeat(60_000)}["x"]`, `42/${'x'.repeat(60_000)}`, `45${'1'.repeat(60_000)}`]) {
    await sends(packet);
  }
});

replay('CVE-2022-2421: a placeholder that refers to no attachment', async () => {
  for (const num of ['"splice"', '"constructor"', '-1', '1.5', '99', 'null', '{}']) {
    const { text } = await sends(`451-8["task:join",{"taskId":{"_placeholder":true,"num":${num}}}]`, frame('x', { opcode: 2 }));
    assert.ok(text.includes('438[{"ok":false') && text.includes('"invalid_payload"'), `${num}: ${text}`);
  }
});

replay('CVE-2023-32695: an event whose name is not a string', async () => {
  for (const name of ['{"toString":"x"}', '{"toString":{}}', '[]', 'null', '1', 'true', '{"__proto__":{}}']) {
    assert.ok(!(await sends(`421[${name}]`)).text.includes('431[{"ok":true'), name);
  }
});

replay('CVE-2026-33151, GHSA-55mf-67qm-4wpg: a packet that declares a huge number of attachments', async () => {
  const before = await memory();
  const attackers = await Promise.all(Array.from({ length: 10 }, session));
  const attachment = frame(Buffer.alloc(32_000), { opcode: 2 });
  for (const raw of attackers) {
    raw.send(frame('4599999-["task:join",{"_placeholder":true,"num":0}]'));
    for (let n = 0; n < 200; n += 1) raw.send(attachment);
    raw.send(frame('4277["dashboard:leave"]'));
  }
  // The attackers have sent 64 MB, if the gateway has read everything.
  await Promise.all(attackers.map((raw) => raw.waitForText('4377[')));
  assert.ok(await memory() < before + 40 * MIB, `${before} before, ${await memory()} after`);
  attackers.forEach(({ socket }) => socket.destroy());
});

// ws

replay('CVE-2016-10518: a pong holds exactly the payload of its ping', async () => {
  const raw = await session();
  raw.send(frame('first', { opcode: 9 }));
  await raw.waitForText('\x8a\x05first');
  for (const length of [0, 1, 4, 100, 125]) {
    const payload = 'p'.repeat(length);
    raw.text = '';
    raw.send(frame(payload, { opcode: 9 }));
    const pong = `\x8a${String.fromCharCode(length)}${payload}`;
    assert.ok(await raw.waitForText(pong), length);
    assert.equal(raw.text, pong, 'and nothing else');
  }
  raw.socket.destroy();
});

replay('CVE-2016-10542, GHSA-55mf-67qm-4wpg: a frame that declares a huge length', async () => {
  const before = await memory();
  for (const length of [70_000, 300 * MIB, 2 ** 40, Number.MAX_SAFE_INTEGER]) {
    const raw = await session();
    raw.send(frame('x'.repeat(1000), { length }));
    assert.ok(await raw.waitForClose(), String(length));
  }
  assert.ok(await memory() < before + 40 * MIB);
});

replay('GHSA-5v72-xg48-5rpm: Sec-WebSocket-Extensions with names of built-in object properties', async () => {
  for (const extensions of ['constructor', 'toString; x', '__proto__; valueOf=1', `permessage-deflate; ${'x;'.repeat(3000)}`, ',;=,;']) {
    const raw = new RawSocket(gateway.port, { headers: `Sec-WebSocket-Extensions: ${extensions}\r\n` });
    assert.ok(await raw.waitForText('"sid"'), extensions);
    assert.ok(!/^sec-websocket-extensions/im.test(raw.text), 'no extension was negotiated');
    raw.socket.destroy();
  }
});

replay('CVE-2021-32640: Sec-WebSocket-Protocol with thousands of spaces', async () => {
  const took = async (value) => {
    const begun = performance.now();
    for (let n = 0; n < 20; n += 1) {
      const raw = new RawSocket(gateway.port, { headers: `Sec-WebSocket-Protocol: ${value}\r\n` });
      assert.ok(await raw.waitForText('\r\n\r\n'));
      raw.socket.destroy();
    }
    return performance.now() - begun;
  };
  const usual = await took(`b${'-'.repeat(8000)}x`);
  assert.ok(await took(`b${' '.repeat(8000)}x`) < 20 * usual + 2000);
});

replay('CVE-2024-37890: more headers than the limit', async () => {
  for (const count of [101, 500, 2000]) {
    const headers = Array.from({ length: count }, (_, n) => `h${n}: x\r\n`).join('');
    const raw = new RawSocket(gateway.port, { headers });
    await raw.waitForText('\r\n\r\n');
    assert.match(raw.text, /^HTTP\/1\.1 4\d\d|^$/, String(count));
    raw.socket.destroy();
  }
});

replay('CVE-2026-45736: the answer to a close frame reveals no memory', async () => {
  for (const payload of [[], [0x03, 0xe8], [0x03, 0xe8, 0x62, 0x79, 0x65], [0x0f, 0xa0]]) {
    const raw = await session();
    raw.text = '';
    raw.send(frame(Buffer.from(payload), { opcode: 8 }));
    await raw.waitForClose();
    const own = Buffer.from(payload).toString('latin1');
    assert.ok(['', `\x88${String.fromCharCode(own.length)}${own}`, `\x88\x02${own.slice(0, 2)}`, '\x88\x00'].includes(raw.text), JSON.stringify(raw.text));
  }
});

replay('CVE-2026-48779: a message in fragments of one byte, and of zero bytes', async () => {
  const before = await memory();
  const attackers = await Promise.all(Array.from({ length: 10 }, session));
  for (const fragment of ['', 'x']) {
    const many = Buffer.concat(Array.from({ length: 20_000 }, () => frame(fragment, { opcode: 0, fin: false })));
    for (const raw of attackers) {
      raw.send(frame(fragment, { fin: false }));
      raw.send(many, many, many);
    }
    await Promise.all(attackers.map(async (raw) => {
      raw.send(frame('p', { opcode: 9 }));
      await raw.waitForText('\x8a\x01p');
    }));
    assert.ok(await memory() < before + 40 * MIB, `${before} before, ${await memory()} after`);
    attackers.forEach(({ socket }) => socket.destroy());
    attackers.splice(0, 10, ...await Promise.all(Array.from({ length: 10 }, session)));
  }
  attackers.forEach(({ socket }) => socket.destroy());
});

// engineioxide, socketioxide

replay('GHSA-c6g7-r2mf-pf5g, GHSA-7xpx-rcqc-8qjh: MsgPack, nested deeply and cut short', async () => {
  for (const bytes of [Buffer.alloc(60_000, 0x91), Buffer.alloc(60_000, 0x81), Buffer.from([0xdf, 0xff, 0xff, 0xff, 0xff]), Buffer.from([0x84, 0xa4]), Buffer.from([0xc1]), Buffer.alloc(0)]) {
    assert.equal((await sends(frame(bytes, { opcode: 2 }))).text.includes('error'), false, 'an attachment without a packet');
  }
});

replay('engineioxide 0.17.8 and older: packets with multi-byte characters, and empty packets', async () => {
  for (const packet of ['é', '🦀', '4é', 'bé', 'b🦀', 'b4', '', '\u{7f}', '4', '2é', '6🦀']) {
    const raw = await session();
    raw.send(frame(packet), frame(packet, { opcode: 2 }));
    raw.send(frame('4277["dashboard:leave"]'));
    await raw.waitForText('4377[');
    raw.socket.destroy();
    const sid = await polling();
    const status = await ask('POST', `${POLLING}&sid=${sid}`, { body: `${packet}\x1e${packet}` });
    assert.ok([200, 400].includes(status), `${packet}: ${status}`);
  }
});

replay('engineioxide 0.17.3 and older: sessions whose upgrade is begun and never completed', async () => {
  const before = (await scrape(gateway.url)).get('taskcast_runtime_tasks');
  const begun = await Promise.all(Array.from({ length: 50 }, async () => {
    const raw = new RawSocket(gateway.port, { path: `/socket.io/?EIO=4&transport=websocket&sid=${await polling()}` });
    raw.send(frame('2probe'));
    return raw;
  }));
  await settles(async () => {
    begun.forEach(({ socket }) => socket.destroy());
    const now = (await scrape(gateway.url)).get('taskcast_runtime_tasks');
    assert.ok(now <= before + 20, `${before} tasks before, ${now} after`);
  }, 60_000);
});
