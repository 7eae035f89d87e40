// The scenarios, with the most repetitions for each server. The arguments are those of siobench/options.rs.

const ALWAYS = Infinity;
const BOTH = { taskcast: ALWAYS, node: ALWAYS };
/** The other servers are measured once, because they take a long time. */
const ALL = { ...BOTH, sioxide: 1, nest: 1, bare: 1, floor: 1 };
/** One task and no dashboards, so that an event is one packet for each client. */
const ONE_ROOM = { tasks: 1, conns: 1000, rate: 10, secs: 6, warm: 2 };

export const SCENARIOS = {
  idle: { title: 'Idle connections, joined to one of 20 tasks and the dashboard', run: 'idle', args: { stages: '1000,5000,10000', conns: 10_000, tasks: 20, dash: 1 }, servers: ALL },
  room100: { title: '10 writes/s, one room of 100', run: 'fanout', args: { ...ONE_ROOM, conns: 100 }, servers: { ...BOTH, floor: ALWAYS } },
  modest: { title: '10 writes/s, one room of 1,000', run: 'fanout', args: ONE_ROOM, servers: { ...BOTH, sioxide: ALWAYS, nest: 1, bare: ALWAYS, floor: ALWAYS } },
  room10k: { title: '2 writes/s, one room of 10,000', run: 'fanout', args: { ...ONE_ROOM, conns: 10_000, rate: 2 }, servers: { taskcast: ALWAYS, node: 1, floor: 1 } },
  sustained: { title: 'The highest write rate for one room of 2,000', run: 'sweep', args: { ...ONE_ROOM, conns: 2000, secs: 3, warm: 1 }, servers: { ...BOTH, sioxide: 1, nest: 1, bare: 1 } },
  rooms: { title: '1,000 writes/s, 200 rooms of 5', run: 'fanout', args: { tasks: 200, conns: 1000, rate: 1000, secs: 5, warm: 2 }, servers: { ...BOTH, sioxide: 1, nest: 1, bare: 1, floor: 1 } },
  writes: {
    title: '200 writes/s (status, title, timeline) to 100 tasks of 4 organisations; 500 clients, each in a task, 100 on the dashboard', run: 'fanout',
    args: { tasks: 100, orgs: 4, conns: 500, dash: 0.2, rate: 200, secs: 8, warm: 2, write: 'full', pad: 40 }, servers: { ...BOTH, nest: 1 },
  },
  reconnect: { title: '5,000 clients reconnect at once after a SIGKILL, each to one of 200 tasks and to the dashboard of one of 4 organisations', run: 'reconnect', args: { tasks: 200, orgs: 4, conns: 5000, dash: 1 }, servers: BOTH },
  jitter: {
    title: '5,000 clients in one room, 2 writes/s; each client is disconnected for 2 s every 15 s', run: 'jitter', args: { tasks: 1, conns: 5000, rate: 2, secs: 30, every: 15, away: 2 },
    servers: BOTH, env: { node: { RECOVERY: '1' } }, own: { node: { recovery: 'library' } },
  },
  dashboard: { title: '1,000 clients join a dashboard of 200 tasks at once', run: 'dashboard', args: { tasks: 200, conns: 1000 }, servers: { ...BOTH, nest: 1 } },
  // The gateway remembers a user's dashboard for two minutes, for bare resyncs. The measurement waits until that is over.
  storms: { title: 'Memory 130 s after ten storms of 5,000 connections, with the same joins as in idle', run: 'storms', args: { tasks: 20, dash: 1, conns: 5000, rounds: 10, settle: 130 }, servers: { taskcast: 1 } },
  growth: { title: 'The cost of a client with few tasks and with many', run: 'growth', args: { sizes: '1000,10000,50000,200000', mongo_sizes: '1000,10000,100000,1000000', entries: '10,1000,20000' }, servers: { taskcast: 1 } },
  ...Object.fromEntries([100, 200, 500, 2000].map((rate) => [`rate${rate}`, {
    title: `${rate.toLocaleString('en-US')} writes/s, 200 rooms of 5`, run: 'fanout', args: { tasks: 200, conns: 1000, rate, secs: 5, warm: 2 }, servers: BOTH,
  }])),
  cluster: { title: '10 writes/s, one room of 1,000 on three nodes with Redis', run: 'fanout', args: ONE_ROOM, servers: BOTH, nodes: 3 },
};

export const SERVERS = {
  taskcast: 'taskcast',
  sioxide: 'taskcast with SOCKETIO_TRANSPORT=socketioxide',
  node: "Node's socket.io with a token check, a change stream with images, rooms with authorization",
  nest: 'the same with NestJS, whose dashboard checks the permission of each socket',
  bare: 'socketioxide with defaults: no token check, no store, no authorization; it receives events by HTTP POST',
  floor: 'each message is framed once and written once for each client; no token check, no store, no library; it receives events by HTTP POST',
};

/** The distinct lists and tasks that the clients of a scenario request: one for each user, each organisation and each task. */
export const distinct = ({ args: { conns, orgs = 1, tasks } }) => ({ tasks, organisations: orgs, users: conns });
