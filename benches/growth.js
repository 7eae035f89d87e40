// Measures what a client costs the gateway with few and with many tasks: the scenario `growth` of benches/run.js.
// The same store grows from row to row. The gateway is restarted for each row.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';

import { Client } from '../tests/e2e/support/client.js';
import { deliver, example, SECRET } from '../tests/e2e/support/github.js';
import { member, pipeline } from '../tests/e2e/support/tokens.js';
import { startServers } from './peers/servers.js';
import { objectId, withTasks } from './peers/store.js';

const ORG = 'acme';
/** The number of users. Each creates tasks and joins the dashboard. */
const USERS = 100;
/** The page size of a list of one creator's tasks. The first row has no more for each creator. */
const MINE = 10;
/** The first tasks, this many, have failed, and no others. A list of failed tasks must skip more and more tasks. */
const FAILED = 200;
const PRIVATE = 10;
const WRITERS = 128;
const INSERT_BATCH_SIZE = 5000;
/** Longer than `LOOK_BACK_SECS` of src/store/mongo/open.rs, because an idle MongoDB advances its cluster time late. */
const LOOK_BACK_MS = 135_000;
/** The unit of user and system time in /proc. */
const TICK_MS = 10;
const LIST = 200;
const REPO = 'Codertocat/Hello-World';
const TIMELINE_WRITES = 300;
const IDLE_MS = 5000;
/** Longer than MongoDB needs for a long timeline. A change that comes after a pause costs more CPU, so all changes have the same pause. */
const WRITE_EVERY_MS = 60;

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

function cpuMs(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

function rssMib(pid) {
  return Number(readFileSync(`/proc/${pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1]) / 1024;
}

/** The same with a resolution of nanoseconds, which a change of a task needs. Threads that have ended do not count. */
function threadsMs(pid) {
  const threads = readdirSync(`/proc/${pid}/task`).map((thread) => readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8'));
  return threads.reduce((sum, text) => sum + Number(text.split(' ')[0]), 0) / 1e6;
}

/** What the program uses in a second without work: heartbeats, checks and clocks. */
async function idleMsPerSecond(pid) {
  const before = threadsMs(pid);
  await setTimeout(IDLE_MS);
  return ((threadsMs(pid) - before) / IDLE_MS) * 1000;
}

/** Runs `work` `times` times: the median duration, and the mean CPU time of the gateway and of MongoDB, in milliseconds. */
async function timed({ pid, mongod, idle, every = 0 }, times, work) {
  const durations = [];
  // A long wait for MongoDB is not work: what the gateway uses without work in the same time does not count.
  const own = idle === undefined ? () => cpuMs(pid) : () => threadsMs(pid) - (idle * performance.now()) / 1000;
  const used = () => [own(), mongod ? cpuMs(mongod) : 0];
  const before = used();
  for (let n = 0; n < times; n += 1) {
    const begun = performance.now();
    await work(n);
    durations.push(performance.now() - begun);
    if (every > 0) await setTimeout(Math.max(0, begun + every - performance.now()));
  }
  const [cpu, ofMongod] = used().map((after, n) => (after - before[n]) / times);
  return { ms: median(durations), cpu_ms: cpu, ...(mongod ? { mongod_ms: ofMongod } : {}) };
}

class Api {
  constructor(url, tokens) {
    Object.assign(this, { url, tokens });
  }

  async ask(method, path, user, body) {
    const headers = { authorization: `Bearer ${this.tokens.get(user)}`, ...(body ? { 'content-type': 'application/json' } : {}) };
    const answer = await fetch(`${this.url}${path}`, { method, headers, body: body && JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }
}

/** Creates the tasks from number `from` to number `to`, several at a time. */
async function fill(api, from, to) {
  let next = from;
  const writer = async () => {
    while (next < to) {
      const n = next;
      next += 1;
      const body = { title: `Task ${n}`, description: 'Something is to be done, and this says what.', repo: 'acme/app', isPrivate: n % PRIVATE === PRIVATE - 1 };
      const { taskId } = await api.ask('POST', '/api/tasks', `user-${n % USERS}`, body);
      if (n < FAILED) await api.ask('PATCH', `/api/tasks/${taskId}`, 'pipeline', { status: 'failed' });
    }
  };
  await Promise.all(Array.from({ length: WRITERS }, writer));
}

const nextEvent = (socket, event) => new Promise((resolve) => socket.once(event, resolve));

async function connect(server, token) {
  const { socket } = await Client.connect(server, token, { keep: false });
  // The client handles only the events that a measurement waits for.
  socket.offAny();
  return socket;
}

async function joinDashboard(socket) {
  const state = nextEvent(socket, 'dashboard:state');
  socket.emit('dashboard:join');
  await state;
}

/** The longest time that another client waits for a task's state while `work` runs. */
async function meanwhile(socket, taskId, work) {
  let done = false;
  const working = work().finally(() => { done = true; });
  let longest = 0;
  while (!done) {
    const begun = performance.now();
    const state = nextEvent(socket, 'task:state');
    socket.emit('resync_requested', { taskIds: [taskId] });
    await state;
    longest = Math.max(longest, performance.now() - begun);
  }
  await working;
  return longest;
}

/** Measures one row: the costs with this many tasks. */
async function measure(server, api, tasks, { write, mongod }) {
  const pid = server.child.pid;
  const programs = { pid, mongod };
  const sockets = [];
  for (let n = 0; n < USERS; n += 1) sockets.push(await connect(server, api.tokens.get(`user-${n}`)));
  const { tasks: [own] } = await api.ask('GET', '/api/tasks?limit=1&creator=user-1', 'user-1');
  const joined = nextEvent(sockets[1], 'task:state');
  sockets[1].emit('task:join', { taskId: own.taskId });
  await joined;
  // The gateway has nothing cached about the organisation yet.
  let first;
  const others = await meanwhile(sockets[1], own.taskId, async () => { first = await timed(programs, 1, () => joinDashboard(sockets[0])); });
  const allFirst = await timed(programs, 1, () => Promise.all(sockets.map(joinDashboard)));
  const before = rssMib(pid);
  const join = await timed(programs, 2 * USERS, (n) => joinDashboard(sockets[n % USERS]));
  const atOnce = await timed(programs, 5, () => Promise.all(sockets.map(joinDashboard)));
  const list = (limit, query) => timed(programs, 100, (n) => api.ask('GET', `/api/tasks?limit=${limit}${query(`user-${n % USERS}`)}`, `user-${n % USERS}`));
  const all = await list(LIST, () => '');
  // The result leaves out private tasks of other users.
  const failed = await list(100, () => '&status=failed');
  const mine = await list(MINE, (user) => `&creator=${user}`);
  const rss = rssMib(pid);
  const seen = sockets[0];
  const { tasks: [task] } = await api.ask('GET', '/api/tasks?limit=1&status=received', 'user-0');
  const change = await timed(programs, 200, async (n) => {
    const arrived = nextEvent(seen, 'dashboard:task_list_updated');
    await write(api, task.taskId, `Changed ${n}`);
    await arrived;
  });
  for (const socket of sockets) socket.disconnect();
  return { kind: 'growth', tasks, first, others_ms: others, all_first: allFirst, join, at_once: atOnce, list: all, failed, mine, change, rss_before_mib: before, rss_mib: rss };
}

async function tokensOfAll() {
  const tokens = new Map([['pipeline', await pipeline(ORG)]]);
  for (let n = 0; n < USERS; n += 1) tokens.set(`user-${n}`, await member(`user-${n}`, ORG, { scope: 'tasks:write' }));
  return tokens;
}

/** Measures the rows of one store, one for each size. `fill` creates tasks, and `write` changes the title of one. */
async function rowsOf(store, sizes, server, { fill, ...programs }) {
  const api = new Api(server.url, await tokensOfAll());
  const rows = [];
  let filled = 0;
  try {
    for (const tasks of String(sizes).split(',').map(Number)) {
      await fill(api, filled, tasks);
      filled = tasks;
      // At its start, the gateway reads the changes of the last two minutes. This wait keeps them out of the measurement.
      if (programs.mongod) await setTimeout(LOOK_BACK_MS);
      const begun = performance.now();
      await server.restart();
      const startMs = performance.now() - begun;
      rows.push({ ...(await measure(server, api, tasks, programs)), start_ms: startMs, store });
      console.log(`  ${store}: ${tasks} tasks, a join takes ${rows.at(-1).join.ms.toFixed(1)} ms`);
    }
  } finally {
    await server.stop();
  }
  return rows;
}

export async function growthOfEmbedded({ sizes }) {
  const [server] = await startServers('taskcast', 1, { DASHBOARD_LIMIT: String(LIST) });
  return rowsOf('embedded', sizes, server, { fill, write: (api, id, title) => api.ask('PATCH', `/api/tasks/${id}`, 'pipeline', { title }) });
}

/** Another program writes the tasks here, like an existing backend. */
export async function growthOfMongodb({ mongo_sizes: sizes }, mongod) {
  const database = await withTasks({ tasks: 0 });
  const [server] = await startServers('taskcast', 1, { ...database.env, DASHBOARD_LIMIT: String(LIST) });
  const begun = Date.now() - 10 ** 9;
  const fillMongodb = async (_, from, to) => {
    for (let n = from; n < to; n += INSERT_BATCH_SIZE) {
      const batch = Array.from({ length: Math.min(INSERT_BATCH_SIZE, to - n) }, (__, k) => {
        const time = new Date(begun + (n + k) * 100);
        const number = n + k;
        return {
          title: `Task ${number}`, description: 'Something is to be done, and this says what.', status: number < FAILED ? 'failed' : 'received', repo: 'acme/app',
          createdBy: `user-${number % USERS}`, creatorName: `User ${number % USERS}`, orgId: ORG, isPrivate: number % PRIVATE === PRIVATE - 1, createdAt: time, updatedAt: time,
          events: [{ eventType: 'received', payload: { from: 'chat' }, createdAt: time }],
        };
      });
      await database.tasks.insertMany(batch, { ordered: false });
    }
  };
  const write = (_, id, title) => database.tasks.updateOne({ _id: objectId(id) }, { $set: { title } });
  try {
    return await rowsOf('mongodb', sizes, server, { fill: fillMongodb, write, mongod: mongod.pid() });
  } finally {
    await database.close();
  }
}

/** Measures one task with a short timeline and with long ones: joins, changes by another program, and GitHub's deliveries. */
export async function growthOfTimelines({ entries: sizes }, mongod) {
  const database = await withTasks({ tasks: 0 });
  const [server] = await startServers('taskcast', 1, { ...database.env, GITHUB_WEBHOOK_SECRET: SECRET });
  const token = await member('alice', ORG);
  const programs = { pid: server.child.pid, mongod: mongod.pid(), every: WRITE_EVERY_MS };
  const rows = [];
  try {
    programs.idle = await idleMsPerSecond(programs.pid);
    for (const [index, entries] of String(sizes).split(',').map(Number).entries()) {
      const [_id, number, now] = [`task-${entries}`, index + 1, new Date()];
      const entry = (n) => ({ eventType: 'step', payload: { n, text: 'what an agent says of its work, some eighty characters of it' }, createdAt: now });
      await database.tasks.insertOne({
        _id, title: 'A long one', status: 'coding', createdBy: 'alice', orgId: ORG, repo: REPO, githubIssueNumber: number, createdAt: now, updatedAt: now, events: Array.from({ length: entries }, (__, n) => entry(n)),
      });
      const socket = await connect(server, token);
      const join = async () => {
        const state = nextEvent(socket, 'task:state');
        socket.emit('resync_requested', { taskIds: [_id] });
        await state;
      };
      await join();
      const writeAndWait = async (event, write) => {
        const arrived = nextEvent(socket, event);
        await write();
        await arrived;
      };
      const write = (event, update) => timed(programs, TIMELINE_WRITES, (n) => writeAndWait(event, () => database.tasks.updateOne({ _id }, update(n))));
      const row = { kind: 'timeline', entries, join: await timed(programs, TIMELINE_WRITES, join) };
      row.title = await write('task:updated', (n) => ({ $set: { title: `Changed ${n}` } }));
      row.append = await write('task:event_added', (n) => ({ $push: { events: entry(n) } }));
      const payload = (n) => {
        const webhook = example('pull_request', 'opened');
        Object.assign(webhook.pull_request, { number: 10_000 * number + n, body: `Fixes #${number}`, html_url: `https://github.com/${REPO}/pull/${10_000 * number + n}` });
        webhook.pull_request.head.ref = `branch-${number}-${n}`;
        return webhook;
      };
      row.webhook = await timed(programs, 1, () => writeAndWait('task:event_added', async () => {
        const { status } = await deliver(server, 'pull_request', payload(0));
        if (status !== 200) throw new Error(`the webhook was answered ${status}`);
      }));
      socket.disconnect();
      rows.push(row);
    }
  } finally {
    await server.stop();
    await database.close();
  }
  return rows;
}
