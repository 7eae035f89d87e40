// Injects faults and checks that no client loses, duplicates or reorders events.
//   node run.js [--long] [--peers] [name…]     A name is a scenario's name or its beginning. Without names, all scenarios run.
//                                              --peers runs the scenarios of peers/ instead.
//
// A scenario file is `<anything>.scenario.js` in this folder, or in peers/, and exports
//   scenarios = [{ name, short: async (ctx) => row, long: async (ctx) => row }]
// `short` takes seconds and asserts counts and contents, but no times; `long` also measures. Both throw when they fail.
// A row has the values of the table: any of COLUMNS.
// `ctx` = { long, replicaSet(): the shared ReplicaSet, mongodb(): the URI of a shared replica set of one, say(text) }.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

import { closeClients } from '../e2e/support/client.js';
import { recentLogs } from '../e2e/support/gateway.js';
import { startMongod } from '../e2e/support/mongo.js';
import { binary } from '../e2e/support/paths.js';
import { ReplicaSet } from './support/replica-set.js';

const COLUMNS = ['writes', 'rate', 'clients', 'lost', 'doubled', 'outOfOrder', 'forbidden', 'silenceMs', 'epochs', 'seconds', 'note'];
/** The suite continues after this time, even when a scenario hangs. */
const DEADLINE = { short: 120_000, long: 600_000 };

const options = process.argv.slice(2);
const here = join(dirname(fileURLToPath(import.meta.url)), options.includes('--peers') ? 'peers' : '');
const long = options.includes('--long');
const requested = options.filter((option) => !option.startsWith('--'));

// All files of servers and gateways are in one folder, which is removed at the end.
const temporary = mkdtempSync(join(tmpdir(), 'taskcast-chaos-'));
process.env.TMPDIR = temporary;
process.on('exit', () => rmSync(temporary, { recursive: true, force: true, maxRetries: 3 }));

const scenarios = [];
for (const file of readdirSync(here).filter((name) => name.endsWith('.scenario.js')).sort()) {
  scenarios.push(...(await import(join(here, file))).scenarios);
}
const chosen = scenarios.filter(({ name }) => requested.length === 0 || requested.some((beginning) => name.startsWith(beginning)));
const unknown = requested.filter((beginning) => !scenarios.some(({ name }) => name.startsWith(beginning)));
if (unknown.length > 0) throw new Error(`no such scenario: ${unknown.join(', ')}`);

let sharedSet;
let sharedMongod;
const context = {
  long,
  say: (text) => console.log(`    ${text}`),
  // When the replica set does not start, only the scenario that started it fails; the next one tries again.
  replicaSet: () => (sharedSet ??= ReplicaSet.start().catch((error) => {
    sharedSet = undefined;
    throw error;
  })),
  async mongodb() {
    sharedMongod ??= startMongod();
    return (await sharedMongod).uri;
  },
};

async function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not finished within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

console.log(`chaos, ${long ? 'long' : 'short'}: testing ${binary()}`);
const rows = [];
let failed = 0;
for (const scenario of chosen) {
  const started = Date.now();
  let row;
  try {
    row = { scenario: scenario.name, ...(await within(DEADLINE[long ? 'long' : 'short'], scenario[long ? 'long' : 'short'](context))) };
  } catch (error) {
    failed += 1;
    row = { scenario: scenario.name, note: 'FAILED' };
    console.error(`${recentLogs()}\n${scenario.name}: ${error.stack}`);
  } finally {
    closeClients();
  }
  row.seconds = Math.round((Date.now() - started) / 100) / 10;
  rows.push(row);
  // A long run prints each result at once, so that an interrupted run still shows them.
  const { lost, doubled, outOfOrder, note } = row;
  console.log(`${note === 'FAILED' ? 'not ok' : 'ok'} - ${scenario.name} (${row.seconds} s)${long && note !== 'FAILED' ? `: ${JSON.stringify({ lost, doubled, outOfOrder, note })}` : ''}`);
}
await Promise.allSettled([sharedSet, sharedMongod].map(async (server) => (await server)?.stop()));

console.log(`\n${table(['scenario', ...COLUMNS], rows)}\n`);
console.log(`chaos: ${chosen.length - failed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);

function table(names, rows) {
  const lines = [names, ...rows.map((row) => names.map((name) => String(row[name] ?? '')))];
  const widths = names.map((_, n) => Math.max(...lines.map((line) => line[n].length)));
  return lines.map((line) => line.map((cell, n) => cell.padEnd(widths[n])).join('  ').trimEnd()).join('\n');
}
