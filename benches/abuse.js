// Measures attacks by clients without a token: the memory of each attacking connection, and how a storm affects authenticated clients.
//   node benches/abuse.js [connections of each attack] [handshakes]
import { fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { Client, closeClients } from '../tests/e2e/support/client.js';
import { Gateway } from '../tests/e2e/support/gateway.js';
import { createTask, patchTask } from '../tests/e2e/support/http.js';
import { member, pipeline } from '../tests/e2e/support/tokens.js';
import { Raw, ATTACKS } from '../tests/e2e/support/attacks.js';
import { until } from '../tests/e2e/support/until.js';

const connections = Number(process.argv[2] ?? 500);
const handshakes = Number(process.argv[3] ?? 20_000);
const SLOW = 500;
const PER_SECOND = 1000;
const READERS = 20;
const EVENTS = 600;
const KB = 1024;
const MB = 1024 * KB;

const anonymousBytes = (gateway) => KB * Number(/RssAnon:\s*(\d+) kB/.exec(readFileSync(`/proc/${gateway.child.pid}/status`, 'utf8'))[1]);
/** All addresses of 127.0.0.0/8 belong to this machine. The gateway sees each as another client. */
const address = (n) => `127.1.${n >> 8}.${n & 255}`;

async function measureAttack(name) {
  const gateway = await Gateway.start({ MAX_UNAUTHENTICATED_PER_ADDRESS: '0', HANDSHAKE_RATE_PER_SECOND: '0', HTTP_KEEP_ALIVE: '10s', LOG_FORMAT: 'json' });
  try {
    const before = anonymousBytes(gateway);
    let peak = before;
    const sample = () => (peak = Math.max(peak, anonymousBytes(gateway)));
    const watch = setInterval(sample, 10);
    const raws = Array.from({ length: connections }, () => new Raw(gateway.port));
    await Promise.all(raws.map((raw) => ATTACKS[name].run(raw)));
    await until(() => raws.every(({ open }) => !open), `${name}: all are closed`, 60_000);
    clearInterval(watch);
    return { attack: name, 'KiB per connection': Math.round((peak - before) / connections / KB) };
  } finally {
    await gateway.stop();
  }
}

/** The milliseconds from the request of a change to the event at the last reader. */
async function roundTrips(gateway, readers, taskId, writer, going) {
  const taken = [];
  for (let n = 0; going(n); n += 1) {
    const title = `${performance.now()}`;
    const begun = performance.now();
    const received = readers.map(({ socket }) => new Promise((resolve) => {
      const listener = ({ changed }) => {
        if (changed.title !== title) return;
        socket.off('task:updated', listener);
        resolve();
      };
      socket.on('task:updated', listener);
    }));
    await patchTask(gateway.url, writer, taskId, { title });
    await Promise.all(received);
    taken.push(performance.now() - begun);
    await sleep(20);
  }
  taken.sort((a, b) => a - b);
  const quantile = (q) => Math.round(10 * taken[Math.min(taken.length - 1, Math.floor(taken.length * q))]) / 10;
  return { events: taken.length, p50: quantile(0.5), p99: quantile(0.99) };
}

async function storm(addresses) {
  const gateway = await Gateway.start({ LOG_FORMAT: 'json' });
  try {
    const alice = await member('alice');
    const writer = await pipeline();
    const { taskId } = await createTask(gateway.url, alice);
    const readers = await Promise.all(Array.from({ length: READERS }, async (_, n) => Client.connect(gateway, await member(`reader-${n}`), { keep: false })));
    for (const reader of readers) await reader.join(taskId);
    await roundTrips(gateway, readers, taskId, writer, (n) => n < 100);
    const fresh = anonymousBytes(gateway);
    const usual = await roundTrips(gateway, readers, taskId, writer, (n) => n < EVENTS);
    const before = anonymousBytes(gateway);
    // Events take memory in the ring and in the store's cache, with or without an attack.
    const ofEvents = (events) => (Math.max(0, before - fresh) / EVENTS) * events;
    const attacker = fork(fileURLToPath(import.meta.url), [], { env: { ...process.env, ATTACK: JSON.stringify({ port: gateway.port, addresses }) } });
    let report;
    attacker.on('message', (message) => (report = message));
    let peak = before;
    const watch = setInterval(() => (peak = Math.max(peak, anonymousBytes(gateway))), 20);
    const meanwhile = await roundTrips(gateway, readers, taskId, writer, () => report === undefined);
    clearInterval(watch);
    const ended = performance.now();
    attacker.kill();
    // A quarter of the attack's memory may stay for a while, in pages of the allocator that are not empty.
    const usually = before + ofEvents(meanwhile.events);
    const back = await until(() => anonymousBytes(gateway) < usually + (peak - usually) / 4, '', 60_000).then(() => Math.round((performance.now() - ended) / 1000), () => 'not in 60');
    const row = {
      addresses, accepted: report.answers[200] ?? 0, 'answered 429': report.answers[429] ?? 0, seconds: report.seconds, 'usual p50': usual.p50, 'usual p99': usual.p99, 'p50 meanwhile': meanwhile.p50,
      'p99 meanwhile': meanwhile.p99, 'MB before': Math.round(before / MB), 'MB of events meanwhile': Math.round(ofEvents(meanwhile.events) / MB), 'MB maximum': Math.round(peak / MB), 'MB afterwards': Math.round(anonymousBytes(gateway) / MB), 'memory freed after s': back, disconnected: readers.flatMap(({ disconnects }) => disconnects).length,
    };
    closeClients();
    return row;
  } finally {
    await gateway.stop();
  }
}

/** Runs the attack in its own process, so that it does not delay the clients. */
async function attack({ port, addresses }) {
  const slow = new Set();
  let over = false;
  const hold = (n) => {
    if (over) return;
    const raw = new Raw(port, { from: address(n % addresses) });
    slow.add(raw);
    ATTACKS['a head that never ends'].run(raw);
    const drip = setInterval(() => raw.write('x'), 1000);
    raw.ended.then(() => (clearInterval(drip), slow.delete(raw), setTimeout(hold, 100, n)));
  };
  for (let n = 0; n < SLOW; n += 1) hold(n);
  const answers = {};
  const begun = performance.now();
  let answered = 0;
  const one = async (n) => {
    const raw = new Raw(port, { from: address(n % addresses) });
    await ATTACKS['a polling session that never polls'].run(raw);
    await until(() => raw.status || !raw.open, 'an answer');
    answers[raw.status || 'none'] = (answers[raw.status || 'none'] ?? 0) + 1;
    answered += 1;
    raw.close();
  };
  for (let n = 0; n < handshakes; n += 1) {
    one(n);
    if (n % 10 === 9) await sleep(Math.max(0, begun + (n * 1000) / PER_SECOND - performance.now()));
  }
  await until(() => answered === handshakes, 'all are answered', 60_000);
  over = true;
  slow.forEach((raw) => raw.close());
  process.send({ answers, seconds: Math.round((performance.now() - begun) / 100) / 10 });
}

if (process.env.ATTACK) {
  await attack(JSON.parse(process.env.ATTACK));
} else {
  const memory = [];
  for (const name of Object.keys(ATTACKS)) memory.push(await measureAttack(name));
  console.log(`${connections} connections for each attack, from their start until the gateway has closed them`);
  console.table(memory);
  const storms = [];
  for (const addresses of [1, 200]) storms.push(await storm(addresses));
  console.log(`${handshakes} handshakes, ${PER_SECOND} a second, and ${SLOW} connections that send one byte of their request head each second; ${READERS} clients with a token, milliseconds from the request of a change to its event at the last client. `
    + `${availableParallelism()} cores for all processes`);
  console.table(storms);
  process.exit(0);
}
