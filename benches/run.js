// The load benchmark: it runs each scenario with each server in turn, each in a new process, and writes a page with the results.
//   node benches/run.js                  REPS=3 ONLY=idle,modest SERVERS=taskcast,node FRESH=1
//   node benches/run.js --report FILE    prints the page from existing results
// A run adds to the existing results and skips what it finds there. FRESH=1 measures again. Another build starts a new file.
import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

import { JWT_SECRET } from '../tests/e2e/support/gateway.js';
import { startMongod } from '../tests/e2e/support/mongo.js';
import { binary, mongod as mongodPath, REPO } from '../tests/e2e/support/paths.js';
import { killGroup, start } from '../tests/e2e/support/processes.js';
import { Redis } from '../tests/e2e/support/redis.js';
import { growthOfEmbedded, growthOfMongodb, growthOfTimelines } from './growth.js';
import { startServers, WITHOUT_STORE } from './peers/servers.js';
import { withTasks } from './peers/store.js';
import { page } from './report.js';
import { SCENARIOS, SERVERS } from './scenarios.js';

const GENERATOR_CORE = '1';
const WITHIN = 300_000;
const { REPS = '3', ONLY, SERVERS: CHOSEN, FRESH } = process.env;
const names = (list, all) => {
  const chosen = list ? list.split(',') : Object.keys(all);
  for (const name of chosen) if (!(name in all)) throw new Error(`unknown name ${name}; known are ${Object.keys(all).join(', ')}`);
  return chosen;
};
const results = join(REPO, 'target/bench/results.jsonl');
const readRows = (file) => (existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').filter(Boolean).map((line) => JSON.parse(line)) : []);
const firstLine = (command, ...args) => execFileSync(command, args, { encoding: 'utf8' }).trim().split('\n')[0];

const at = process.argv.indexOf('--report');
if (at > 0) {
  process.stdout.write(page(readRows(process.argv[at + 1])));
  process.exit(0);
}

const build = firstLine(binary(), '--version');
const machine = () => ({
  kind: 'machine', build, cores: cpus().length, model: cpus()[0].model, memoryGib: Math.round(totalmem() / 2 ** 30), kernel: release(), node: process.version,
  mongod: firstLine(mongodPath(), '--version'), rustc: firstLine('rustc', '--version'), at: new Date().toISOString().slice(0, 10),
});

async function queries(database) {
  const { metrics } = await database.client.db('admin').command({ serverStatus: 1 });
  return { finds: Number(metrics.commands.find.total), aggregates: Number(metrics.commands.aggregate.total) };
}

/** Runs one scenario with one server; returns the rows of the load generator. */
async function measure(scenario, name, mongod) {
  if (scenario.run === 'growth') {
    return [...(await growthOfMongodb(scenario.args, mongod)), ...(await growthOfTimelines(scenario.args, mongod)), ...(await growthOfEmbedded(scenario.args))];
  }
  const stored = !WITHOUT_STORE.has(name);
  const database = stored ? await withTasks(scenario.args) : undefined;
  const redis = scenario.nodes ? await Redis.start() : undefined;
  const rows = [];
  let servers = [];
  try {
    servers = await startServers(name, scenario.nodes ?? 1, { ...database?.env, ...(redis ? { REDIS_URL: redis.url } : {}), ...scenario.env?.[name] });
    const args = {
      url: servers.map(({ port }) => `127.0.0.1:${port}`).join(','), pid: servers.map(({ child }) => child.pid).join(','), secret: JWT_SECRET,
      ...(stored ? { mongo: database.uri, db: database.name, 'mongod-pid': mongod.pid() } : {}), ...scenario.args, ...scenario.own?.[name],
    };
    const words = Object.entries(args).flatMap(([key, value]) => [`--${key}`, String(value)]);
    const generator = start(join(REPO, 'target/release/examples/siobench'), [scenario.run, ...words], { stdio: ['pipe', 'pipe', 'inherit'] });
    const timer = setTimeout(() => killGroup(generator), WITHIN);
    let startup;
    for await (const line of createInterface({ input: generator.stdout })) {
      const row = JSON.parse(line);
      if (row.kind === 'kill it') {
        await servers[0].kill();
        const begun = performance.now();
        await servers[0].launch();
        startup = { startupMs: Math.round(performance.now() - begun), before: await queries(database) };
        generator.stdin.write(`go ${servers[0].child.pid}\n`);
        continue;
      }
      if (startup && row.kind === 'reconnect') {
        const after = await queries(database);
        Object.assign(row, { startup_ms: startup.startupMs, finds: after.finds - startup.before.finds, aggregates: after.aggregates - startup.before.aggregates });
      }
      rows.push(row);
    }
    clearTimeout(timer);
    const { code, signal } = await generator.exited;
    if (code !== 0) throw new Error(`the generator ended with ${code ?? signal}\n${servers[0].lastLines(8)}`);
    return rows;
  } finally {
    for (const server of servers) await server.stop().catch((error) => console.error(`  ${error.message}`));
    await redis?.stop();
    await database?.close();
  }
}

execFileSync('taskset', ['-a', '-p', '-c', GENERATOR_CORE, String(process.pid)]);
mkdirSync(dirname(results), { recursive: true });
const scenarios = names(ONLY, SCENARIOS);
const servers = names(CHOSEN, SERVERS);
let known = readRows(results);
if (known.some((row) => row.kind === 'machine' && row.build !== build)) {
  renameSync(results, results.replace('.jsonl', `.${Date.now()}.jsonl`));
  known = [];
} else if (FRESH) {
  known = known.filter((row) => !(scenarios.includes(row.scenario) && servers.includes(row.server)));
  writeFileSync(results, known.map((row) => `${JSON.stringify(row)}\n`).join(''));
}
if (!known.some(({ kind }) => kind === 'machine')) appendFileSync(results, `${JSON.stringify(machine())}\n`);

const mongod = await startMongod();
process.env.TASKCAST_E2E_MONGODB_URI = mongod.uri;
let failed = 0;
try {
  for (let rep = 0; rep < Number(REPS); rep += 1) {
    for (const scenario of scenarios) {
      const taking = servers.filter((name) => rep < (SCENARIOS[scenario].servers[name] ?? 0));
      // The order changes with each repetition, so that no server is always the first.
      const order = taking.map((_, n) => taking[(n + rep) % taking.length]);
      for (const server of order) {
        if (known.some((row) => row.scenario === scenario && row.server === server && row.rep === rep)) continue;
        const begun = performance.now();
        const outcome = await measure(SCENARIOS[scenario], server, mongod).catch((error) => error);
        const seconds = `${((performance.now() - begun) / 1000).toFixed(1)} s`;
        if (outcome instanceof Error) {
          failed += 1;
          console.error(`${rep} ${scenario} ${server}: ${outcome.message}`);
          continue;
        }
        for (const row of outcome) appendFileSync(results, `${JSON.stringify({ scenario, server, rep, load: loadavg()[0], ...row })}\n`);
        console.log(`${rep} ${scenario.padEnd(10)} ${server.padEnd(9)} ${seconds}`);
      }
    }
  }
} finally {
  await mongod.stop();
}
const whole = !ONLY && !CHOSEN;
const file = join(REPO, whole ? 'docs/benchmarks.md' : 'target/bench/benchmarks.md');
writeFileSync(file, page(readRows(results)));
console.log(whole ? `written: ${file}` : page(readRows(results)));
process.exit(failed > 0 ? 1 : 0);
