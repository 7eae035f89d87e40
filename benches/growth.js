// What a client costs the gateway when there are few tasks and when there are many: the scenario `growth` of benches/run.js.
// The same store grows from row to row; for each row the gateway is started anew.
import { readFileSync } from 'node:fs';

import { Client } from '../tests/e2e/support/client.js';
import { member, pipeline } from '../tests/e2e/support/tokens.js';
import { startServers } from './peers/servers.js';

const ORG = 'acme';
/** Creators of the tasks; each is also one who joins. */
const USERS = 100;
/** So many of a creator's tasks are asked for; the first row has no more. */
const MINE = 10;
/** So many tasks of the first ones have failed, and no others: a filter for them passes over ever more tasks. */
const FAILED = 200;
const PRIVATE = 10;
const WRITERS = 128;
/** Of user and system time in /proc. */
const TICK_MS = 10;
const LIST = 200;

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

function cpuMs(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

function rssMib(pid) {
  return Number(readFileSync(`/proc/${pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1]) / 1024;
}

/** How long each of `times` runs of `work` takes, and how much CPU of the process, in milliseconds. */
async function timed(pid, times, work) {
  const durations = [];
  const cpu = cpuMs(pid);
  for (let n = 0; n < times; n += 1) {
    const begun = performance.now();
    await work(n);
    durations.push(performance.now() - begun);
  }
  return { ms: median(durations), cpu_ms: (cpuMs(pid) - cpu) / times };
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

/** Makes the tasks from number `from` to number `to`, several at a time. */
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

const heard = (socket, event) => new Promise((resolve) => socket.once(event, resolve));

async function connect(server, token) {
  const { socket } = await Client.connect(server, token, { keep: false });
  // Nothing but what is waited for.
  socket.offAny();
  return socket;
}

async function joinDashboard(socket) {
  const state = heard(socket, 'dashboard:state');
  socket.emit('dashboard:join');
  await state;
}

/** One row: what it costs with this many tasks. */
async function measure(server, api, tasks) {
  const pid = server.child.pid;
  const sockets = [];
  for (let n = 0; n < USERS; n += 1) sockets.push(await connect(server, api.tokens.get(`user-${n}`)));
  await joinDashboard(sockets[0]);
  const before = rssMib(pid);
  const join = await timed(pid, 2 * USERS, (n) => joinDashboard(sockets[n % USERS]));
  const atOnce = await timed(pid, 5, () => Promise.all(sockets.map(joinDashboard)));
  const list = (limit, query) => timed(pid, 100, (n) => api.ask('GET', `/api/tasks?limit=${limit}${query(`user-${n % USERS}`)}`, `user-${n % USERS}`));
  const all = await list(LIST, () => '');
  // The private ones of others are not seen.
  const failed = await list(100, () => '&status=failed');
  const mine = await list(MINE, (user) => `&creator=${user}`);
  const rss = rssMib(pid);
  const seen = sockets[0];
  const { tasks: [task] } = await api.ask('GET', '/api/tasks?limit=1&status=received', 'user-0');
  const change = await timed(pid, 200, async (n) => {
    const told = heard(seen, 'dashboard:task_list_updated');
    await api.ask('PATCH', `/api/tasks/${task.taskId}`, 'pipeline', { title: `Changed ${n}` });
    await told;
  });
  for (const socket of sockets) socket.disconnect();
  return { kind: 'growth', tasks, join, at_once: atOnce, list: all, failed, mine, change, rss_before_mib: before, rss_mib: rss };
}

/** The rows of the embedded store, one for each size. */
export async function growthOfEmbedded({ sizes }) {
  const tokens = new Map([['pipeline', await pipeline(ORG)]]);
  for (let n = 0; n < USERS; n += 1) tokens.set(`user-${n}`, await member(`user-${n}`, ORG, { scope: 'tasks:write' }));
  const [server] = await startServers('taskcast', 1, { DASHBOARD_LIMIT: String(LIST) });
  const api = new Api(server.url, tokens);
  const rows = [];
  let filled = 0;
  try {
    for (const tasks of String(sizes).split(',').map(Number)) {
      await fill(api, filled, tasks);
      filled = tasks;
      const begun = performance.now();
      await server.restart();
      const startMs = performance.now() - begun;
      rows.push({ ...(await measure(server, api, tasks)), start_ms: startMs, store: 'embedded' });
    }
  } finally {
    await server.stop();
  }
  return rows;
}
