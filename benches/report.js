// Writes docs/benchmarks.md: the targets and the measured figures.
import { OF_TASKCAST } from './peers/servers.js';
import { SCENARIOS, SERVERS } from './scenarios.js';

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const short = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3))));
const idleAt = (conns, field) => (row) => (row.kind === 'idle' && row.conns === conns ? field(row) : undefined);
const of = (kind, field) => (row) => (row.kind === kind ? field(row) : undefined);
const fanout = (field) => of('fanout', field);

/** [scenario, [[title, value of a row]]], in the order of the page. */
const FIGURES = [
  ['idle', [
    ...[1000, 5000, 10_000].map((conns) => [`RSS per connection at ${short(conns)}, KiB`, idleAt(conns, (row) => row.kib_per_conn)]),
    ['connects/s with token check and joins, 64 at a time', idleAt(5000, (row) => row.connects_per_s)],
    ['handshake p50, ms', idleAt(5000, (row) => row.handshake_ms.p50)],
    ['handshake p99, ms', idleAt(5000, (row) => row.handshake_ms.p99)],
    ['joins answered p99, ms', idleAt(5000, (row) => row.join_ms.p99)],
    ['CPU per connect, ms', idleAt(5000, (row) => row.cpu_ms_per_connect)],
    ["MongoDB's CPU per connect, ms", idleAt(5000, (row) => row.mongod_ms_per_connect)],
    ['CPU when idle at 10,000, %', idleAt(10_000, (row) => row.idle_cpu_percent)],
  ]],
  ...['room100', 'modest', 'room10k', 'rate100', 'rate200', 'rate500', 'rooms', 'rate2000', 'cluster'].map((scenario) => [scenario, [
    ['CPU per million deliveries, s', fanout((row) => row.cpu_s_per_million)],
    ['write to client p50, ms', fanout((row) => row.latency_ms.p50)],
    ['write to client p99, ms', fanout((row) => row.latency_ms.p99)],
    ['bytes per delivery', fanout((row) => row.bytes_per_delivery)],
    ['RSS, MiB', fanout((row) => row.rss_kib / 1024)],
  ]]),
  ['sustained', [
    ['sustained deliveries/s', of('sweep', (row) => row.sustained_per_s)],
    ['deliveries/s without a pause between writes', of('flat', (row) => row.deliveries_per_s)],
    ['CPU per million deliveries without a pause, s', of('flat', (row) => row.cpu_s_per_million)],
    ["load generator's CPU without a pause, % of its core", of('flat', (row) => (100 * row.generator_cpu_s) / row.seconds)],
    ["MongoDB's CPU without a pause, % of that core", of('flat', (row) => (100 * row.mongod_cpu_s) / row.seconds)],
    ['bytes per delivery', of('flat', (row) => row.bytes_per_delivery)],
  ]],
  ['writes', [
    ['CPU per write, ms', fanout((row) => row.cpu_ms_per_event)],
    ['write to client p50, ms', fanout((row) => row.latency_ms.p50)],
    ['write to client p99, ms', fanout((row) => row.latency_ms.p99)],
    ["MongoDB's commit p50, ms", fanout((row) => row.commit_ms.p50)],
    ["MongoDB's commit p99, ms", fanout((row) => row.commit_ms.p99)],
    ["MongoDB's CPU, s", fanout((row) => row.mongod_cpu_s)],
    ['bytes per delivery', fanout((row) => row.bytes_per_delivery)],
  ]],
  ['reconnect', [
    ['until all clients have their states, s', of('reconnect', (row) => row.seconds)],
    ['until a client has its states, p50, ms', of('reconnect', (row) => row.whole_ms.p50)],
    ['failed connection attempts', of('reconnect', (row) => row.again)],
    ['find commands', of('reconnect', (row) => row.finds)],
    ['aggregate commands', of('reconnect', (row) => row.aggregates)],
    ['CPU, s', of('reconnect', (row) => row.cpu_s)],
    ["MongoDB's CPU, s", of('reconnect', (row) => row.mongod_cpu_s)],
    ['from start to serving, ms', of('reconnect', (row) => row.startup_ms)],
  ]],
  ['jitter', [
    ['delivered, %', of('jitter', (row) => row.delivered_percent)],
    ['late deliveries, time after the reconnect, p50, ms', of('jitter', (row) => row.late_ms.p50)],
    ['late deliveries, time after the reconnect, p99, ms', of('jitter', (row) => row.late_ms.p99)],
    ['reconnects that got a state instead of events, per 1,000', of('jitter', (row) => (1000 * row.state_instead) / Math.max(1, row.cuts))],
    ['CPU, s', of('jitter', (row) => row.cpu_s)],
  ]],
  ['dashboard', [
    ['until all clients have their list, s', of('dashboard', (row) => row.seconds)],
    ['CPU per join, ms', of('dashboard', (row) => row.cpu_ms_per_join)],
    ['bytes per list', of('dashboard', (row) => row.bytes_per_state)],
    ['RSS, MiB', of('dashboard', (row) => row.rss_kib / 1024)],
  ]],
  ['storms', [
    ['RSS before, MiB', of('storms', (row) => row.before_kib / 1024)],
    ['maximum RSS, MiB', of('storms', (row) => row.most_kib / 1024)],
    ['RSS after the first storm, MiB', of('storms', (row) => row.first_kib / 1024)],
    ['RSS after the last storm, MiB', of('storms', (row) => row.after_kib / 1024)],
  ]],
];

class Results {
  constructor(rows) {
    this.rows = rows.filter(({ scenario }) => scenario !== undefined);
    this.machine = rows.find(({ kind }) => kind === 'machine');
  }

  values(scenario, server, field) {
    return this.rows.filter((row) => row.scenario === scenario && row.server === server).map(field).filter((value) => value !== undefined && Number.isFinite(value));
  }

  median(scenario, server, what) {
    const field = FIGURES.find(([name]) => name === scenario)[1].find(([name]) => name === what)[1];
    const values = this.values(scenario, server, field);
    return values.length > 0 ? median(values) : undefined;
  }

  ratio(scenario, what, to = 'node') {
    const [one, other] = [this.median(scenario, 'taskcast', what), this.median(scenario, to, what)];
    return one === undefined || !other ? undefined : one / other;
  }
}

const MILLION = 'CPU per million deliveries, s';
const quotient = (a, b) => (a === undefined || b === undefined ? undefined : a / b);

/** [title, unit, bound, whether more is better, value] */
const targets = (results) => [
  ['RSS of an idle connection at 10,000, joined to a task and the dashboard', '× Node', 0.9, false, results.ratio('idle', 'RSS per connection at 10,000, KiB')],
  ['RSS of an idle connection at 10,000, absolute', 'KiB', 11, false, results.median('idle', 'taskcast', 'RSS per connection at 10,000, KiB')],
  ['connects/s with token check and joins', '× Node', 12, true, results.ratio('idle', 'connects/s with token check and joins, 64 at a time')],
  ['handshake p99', '× Node', 0.15, false, results.ratio('idle', 'handshake p99, ms')],
  ['CPU per delivery, 10 writes/s to 1,000 clients', '× Node', 0.6, false, results.ratio('modest', MILLION)],
  ['CPU per delivery, 10 writes/s to 1,000 clients', '× floor', 1.9, false, results.ratio('modest', MILLION, 'floor')],
  ['sustained deliveries/s, p99 < 200 ms, nothing lost', '× Node', 9, true, results.ratio('sustained', 'sustained deliveries/s')],
  ['CPU per delivery, 200 rooms of 5, 1,000 writes/s', '× Node', 0.35, false, results.ratio('rooms', MILLION)],
  ...['rate100', 'rate200', 'rate500', 'rooms', 'rate2000'].flatMap((scenario) => ['p50', 'p99'].map((part) => [
    `write to client ${part}, ${SCENARIOS[scenario].title}`, '× Node', 1, false, results.ratio(scenario, `write to client ${part}, ms`),
  ])),
  ['CPU per write, 200 writes/s', '× Node', 0.2, false, results.ratio('writes', 'CPU per write, ms')],
  ['write to client p50, 200 writes/s', '× Node', 0.9, false, results.ratio('writes', 'write to client p50, ms')],
  ['write to client p99, 200 writes/s', '× Node', 0.9, false, results.ratio('writes', 'write to client p99, ms')],
  ['5,000 clients reconnect at once: until all have their states', '× Node', 0.1, false, results.ratio('reconnect', 'until all clients have their states, s')],
  ['5,000 clients reconnect at once: store queries', 'per distinct list and task', 1, false, queriesOf(results)],
  ['jitter, 5,000 clients: delivered', '%', 100, true, results.median('jitter', 'taskcast', 'delivered, %')],
  ['jitter: p99 of late deliveries', '× Node with state recovery', 1, false, results.ratio('jitter', 'late deliveries, time after the reconnect, p99, ms')],
  ['CPU per delivery to a room of 10,000', '× room of 100', 1.3, false, quotient(results.median('room10k', 'taskcast', MILLION), results.median('room100', 'taskcast', MILLION))],
  ['RSS after ten storms of 5,000', '× before', 1.2, false, quotient(results.median('storms', 'taskcast', 'RSS after the last storm, MiB'), results.median('storms', 'taskcast', 'RSS before, MiB'))],
  ...[
    ['a join', (row) => row.join.ms], ["MongoDB's CPU per join", (row) => row.join.mongod_ms], ['a list of 200', (row) => row.list.ms], ["MongoDB's CPU per list", (row) => row.list.mongod_ms],
    ['100 joins at once', (row) => row.at_once.ms],
  ].map(([what, field]) => [`${what}, MongoDB, 1,000,000 tasks`, '× 1,000 tasks', 1.5, false, grown(results, 'mongodb', field)]),
  ['the first join, MongoDB, 1,000,000 tasks', 'ms', 2000, false, growthOf(results, 'mongodb').at(-1)?.first.ms],
  ['CPU per change of a task with 20,000 entries', '× 10 entries', 1.5, false, lengthened(results, (row) => row.title.cpu_ms)],
  ['CPU per entry that is appended to 20,000 entries', '× 10 entries', 1.5, false, lengthened(results, (row) => row.append.cpu_ms)],
  ['a join, embedded store, 200,000 tasks', '× 1,000 tasks', 2, false, grown(results, 'embedded', (row) => row.join.ms)],
  ['100 joins at once, embedded store, 200,000 tasks', '× 1,000 tasks', 2, false, grown(results, 'embedded', (row) => row.at_once.ms)],
  ['a list of 200, embedded store, 200,000 tasks', '× 1,000 tasks', 2, false, grown(results, 'embedded', (row) => row.list.ms)],
  ['CPU per delivery on three nodes with Redis', '× one node', 1.25, false, quotient(results.median('cluster', 'taskcast', MILLION), results.median('modest', 'taskcast', MILLION))],
];

/** The columns of a growth table: [title, value of a row]. */
const GROWTH = [
  ['the first join, ms', (row) => row.first.ms],
  ['the longest resync of another client during the first join, ms', (row) => row.others_ms],
  ['the first 100 joins at once, ms', (row) => row.all_first.ms],
  ['a join, ms', (row) => row.join.ms],
  ['a join: CPU, ms', (row) => row.join.cpu_ms],
  ['a join: MongoDB’s CPU, ms', (row) => row.join.mongod_ms],
  ['100 joins at once, ms', (row) => row.at_once.ms],
  ['100 joins at once: CPU, ms', (row) => row.at_once.cpu_ms],
  ['100 joins at once: MongoDB’s CPU, ms', (row) => row.at_once.mongod_ms],
  ['list of 200, ms', (row) => row.list.ms],
  ['list of 200: CPU, ms', (row) => row.list.cpu_ms],
  ['list of 200: MongoDB’s CPU, ms', (row) => row.list.mongod_ms],
  ['list of 100 failed tasks, ms', (row) => row.failed.ms],
  ['list of 100 failed tasks: CPU, ms', (row) => row.failed.cpu_ms],
  ['list of 100 failed tasks: MongoDB’s CPU, ms', (row) => row.failed.mongod_ms],
  ['list of 10 of one creator, ms', (row) => row.mine.ms],
  ['list of 10 of one creator: CPU, ms', (row) => row.mine.cpu_ms],
  ['list of 10 of one creator: MongoDB’s CPU, ms', (row) => row.mine.mongod_ms],
  ['a change until a client has it, ms', (row) => row.change.ms],
  ['a change: CPU, ms', (row) => row.change.cpu_ms],
  ['a change: MongoDB’s CPU, ms', (row) => row.change.mongod_ms],
  ['RSS before the joins, MiB', (row) => row.rss_before_mib],
  ['RSS after the joins, MiB', (row) => row.rss_mib],
  ['from start to serving after SIGKILL, ms', (row) => row.start_ms],
];

const growthOf = (results, store) => results.rows.filter((row) => row.kind === 'growth' && row.store === store).sort((a, b) => a.tasks - b.tasks);

/** The ratio of the last row to the first. */
function grown(results, store, field) {
  const rows = growthOf(results, store);
  return rows.length > 1 ? quotient(field(rows.at(-1)), field(rows[0])) : undefined;
}

const timelinesOf = (results) => results.rows.filter((row) => row.kind === 'timeline').sort((a, b) => a.entries - b.entries);

function lengthened(results, field) {
  const rows = timelinesOf(results);
  return rows.length > 1 ? quotient(field(rows.at(-1)), field(rows[0])) : undefined;
}

/** One table for each store and one for timelines. The rows are sizes; brackets show the ratio to the first row. */
function growth(results) {
  const tables = ['embedded', 'mongodb'].map((store) => {
    const rows = growthOf(results, store);
    if (rows.length === 0) return '';
    const lines = GROWTH.filter(([, field]) => field(rows[0]) !== undefined);
    const cells = rows.map((one) => lines.map(([, field]) => {
      const [value, first] = [field(one), field(rows[0])];
      return `${short(value)}${first > 0 && one !== rows[0] ? ` (${short(value / first)} ×)` : ''}`;
    }));
    return `The ${store} store:\n\n${table(['tasks', ...lines.map(([what]) => what)], rows.map((one, n) => [short(one.tasks), ...cells[n]]))}\n`;
  });
  const long = timelinesOf(results);
  if (long.length > 0) {
    const lines = Object.entries({ 'a resync of the task': 'join', 'a new title until a client has it': 'title', 'an appended entry until a client has it': 'append', 'a delivery of GitHub until a client has it': 'webhook' });
    const parts = [['ms', 'ms'], ['CPU, ms', 'cpu_ms'], ['MongoDB’s CPU, ms', 'mongod_ms']];
    const columns = lines.flatMap(([what, key]) => parts.map(([unit, part]) => [`${what}, ${unit}`, (row) => row[key][part]]));
    const cells = long.map((row) => columns.map(([, field]) => `${short(field(row))}${row !== long[0] && field(long[0]) > 0 ? ` (${short(field(row) / field(long[0]))} ×)` : ''}`));
    tables.push(`One task with a timeline, in MongoDB:\n\n${table(['entries', ...columns.map(([what]) => what)], long.map((row, n) => [short(row.entries), ...cells[n]]))}\n`);
  }
  const shown = tables.filter(Boolean);
  return shown.length > 0 ? `### growth\n\n${SCENARIOS.growth.title}. The numbers in brackets are ratios to the first row.\n\n${shown.join('\n')}` : '';
}

function queriesOf(results) {
  const [finds, aggregates] = [results.median('reconnect', 'taskcast', 'find commands'), results.median('reconnect', 'taskcast', 'aggregate commands')];
  const { args: { tasks, orgs, conns } } = SCENARIOS.reconnect;
  return finds === undefined ? undefined : (finds + aggregates) / (tasks + orgs + conns);
}

function verdict(bound, more, value) {
  if (value === undefined) return 'not measured';
  return (more ? value >= bound : value <= bound) ? 'yes' : '**no**';
}

const row = (cells) => `| ${cells.join(' | ')} |`;
const table = (head, rows) => [row(head), row(head.map(() => '---')), ...rows.map(row)].join('\n');

function figures(results, [scenario, lines]) {
  const { title, args, servers } = SCENARIOS[scenario];
  const present = Object.keys(servers).filter((server) => results.rows.some((one) => one.scenario === scenario && one.server === server));
  if (present.length === 0) return '';
  const cell = (what, field) => (server) => {
    const values = results.values(scenario, server, field);
    if (values.length === 0) return '';
    const node = results.values(scenario, 'node', field);
    const ratio = server !== 'node' && node.length > 0 && median(node) > 0 ? ` (${short(median(values) / median(node))} ×)` : '';
    const spread = values.length > 1 ? `, ${short(Math.min(...values))}..${short(Math.max(...values))}` : '';
    return `${short(median(values))}${ratio}${spread}`;
  };
  const faults = (server) => ['lost', 'twice', 'out_of_order', 'failed', 'closed']
    .map((name) => [name.replaceAll('_', ' '), results.values(scenario, server, (one) => (one.kind === 'flat' ? undefined : one[name])).reduce((sum, value) => sum + value, 0)])
    .filter(([, count]) => count > 0).map(([name, count]) => `${short(count)} ${name}`).join(', ') || 'none';
  const rows = lines.map(([what, field]) => [what, ...present.map(cell(what, field))]);
  return `### ${scenario}\n\n${title}.\n\n${table(['', ...present], [...rows, ['lost, twice, out of order, failed, closed', ...present.map(faults)]])}\n\n`
    + `\`siobench ${SCENARIOS[scenario].run} ${Object.entries(args).map(([key, value]) => `--${key} ${value}`).join(' ')}\`\n`;
}

export function page(rows) {
  const results = new Results(rows);
  const { build, cores, model, memoryGib, kernel, node, mongod, rustc, at } = results.machine;
  const reps = 1 + Math.max(0, ...results.rows.map(({ rep }) => rep));
  const aims = targets(results).map(([what, unit, bound, more, value]) => [what, value === undefined ? '' : `${short(value)} ${unit}`, `${more ? '≥' : '≤'} ${bound}`, verdict(bound, more, value)]);
  return `# Benchmarks

This page compares taskcast with other servers that do the same work on one machine. \`make bench\` writes this page.
\`node benches/run.js --report target/bench/results.jsonl\` prints it from the results of an earlier run.

${build}, ${at}. ${cores} cores of ${model}, ${memoryGib} GiB, Linux ${kernel}; node ${node}, mongod ${mongod.replace(/^db version /, '')}, ${rustc}.
The server has one core. The load generator, MongoDB and Redis share the other. ${reps} repetition${reps > 1 ? 's' : ''}, with the servers in turn and a new process for each. Figures are medians, followed by the minimum and the maximum.

## Targets

${table(['', 'measured', 'target', 'met'], aims)}

## Servers

${table(['', 'description'], Object.entries(SERVERS))}

- Each connection has its own user and an HS256 token. The limits of one address and of one user are raised. A server reads a task from MongoDB before a client joins its room. The official
  driver writes the changes with MongoDB's default write concern, and the servers read them through a change stream with pre- and post-images. The last two servers have no MongoDB: they receive
  the same number of messages of the same size by HTTP.
- The settings of taskcast are ${Object.entries(OF_TASKCAST).map(([name, value]) => `\`${name}=${value}\``).join(', ')}. Node's servers have \`NODE_ENV=production\`,
  and connection state recovery in the scenario with disconnected clients.
- Latency counts from the time at which a write was due, so that it includes the delay of writes that a server could not accept yet.
- A delivery is one event of a write at one client. All servers send the same counted events for a write: \`task:updated\`; with status and timeline also \`task:event_added\`, and
  \`dashboard:task_list_updated\` on the dashboards. Status events and counts are not counted. taskcast's events are longer, because they have \`eventId\` and \`occurredAt\`.
- CPU is the CPU time of the server's threads, from the first counted write to the last delivery. It does not include MongoDB and Redis.

## Figures

Each cell has the median, its ratio to Node's median in brackets, and the range of all repetitions.

${[...FIGURES.map((one) => figures(results, one)), growth(results)].filter(Boolean).join('\n')}`;
}
