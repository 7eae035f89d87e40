// A good plain gateway with Node's socket.io: a token check, rooms with authorization, and a change stream with post-images.
// RECOVERY=1 enables connection state recovery. REDIS_URL enables the Redis adapter. FOLLOW=1 is the one server that follows the change
// stream for all.
import { createServer } from 'node:http';

import { createAdapter } from '@socket.io/redis-adapter';
import jwt from 'jsonwebtoken';
import { MongoClient, ObjectId } from 'mongodb';
import { createClient } from 'redis';
import { Server } from 'socket.io';

import { canSee, dashboardsOf, eventsOf, PIPELINE, state, STREAM, summary, visibleTo } from './tasks.js';

const { FOLLOW = '1', JWT_SECRET, MONGODB_DB, MONGODB_URI, PORT, RECOVERY, REDIS_URL } = process.env;
const DASHBOARD_LIMIT = 500;
const BACKLOG = 4096;
const NOT_FOUND = { code: 'not_found', message: 'No such task' };

const http = createServer((request, response) => {
  response.writeHead(request.url === '/api/health' ? 200 : 404, { 'content-type': 'application/json' });
  response.end('{"status":"ok"}');
});
const io = new Server(http, {
  serveClient: false,
  perMessageDeflate: false,
  ...(RECOVERY ? { connectionStateRecovery: { maxDisconnectionDuration: 120_000, skipMiddlewares: false } } : {}),
});
if (REDIS_URL) {
  const [publisher, subscriber] = await Promise.all([createClient({ url: REDIS_URL }).connect(), createClient({ url: REDIS_URL }).connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}
const tasks = (await new MongoClient(MONGODB_URI).connect()).db(MONGODB_DB).collection('tasks');

io.use((socket, next) => {
  try {
    const { sub, orgId } = jwt.verify(socket.handshake.auth.token, JWT_SECRET, { algorithms: ['HS256'] });
    socket.data.user = { id: sub, orgId };
    next();
  } catch {
    next(new Error('unauthorized'));
  }
});

io.on('connection', (socket) => {
  const { user } = socket.data;

  // A client joins a room before its state is read, so a change in between is sent twice instead of never.
  async function task(id) {
    await socket.join(`task:${id}`);
    const found = await tasks.findOne({ _id: new ObjectId(id) });
    if (found && canSee(user, found)) {
      socket.emit('task:state', state(found));
      return { ok: true };
    }
    await socket.leave(`task:${id}`);
    return { ok: false, error: NOT_FOUND };
  }

  async function dashboard() {
    await socket.join([`dashboard:user:${user.id}`, `dashboard:org:${user.orgId}`]);
    const list = await tasks.find(visibleTo(user), { projection: { events: 0 } }).sort({ createdAt: -1 }).limit(DASHBOARD_LIMIT).toArray();
    socket.emit('dashboard:state', list.map(summary));
    return { ok: true };
  }

  const on = (event, handle) => socket.on(event, async (...args) => {
    const acknowledge = typeof args.at(-1) === 'function' ? args.pop() : ({ ok, error }) => ok || socket.emit('error', error);
    acknowledge(await handle(args[0] ?? {}).catch((error) => ({ ok: false, error: { code: 'unavailable', message: error.message } })));
  });
  on('task:join', ({ taskId }) => task(taskId));
  on('dashboard:join', dashboard);
  on('resync_requested', async ({ taskIds = [], dashboard: listed }) => {
    await Promise.all([...taskIds.map(task), ...(listed ? [dashboard()] : [])]);
    return { ok: true };
  });
});

if (FOLLOW === '1') {
  tasks.watch(PIPELINE, STREAM).on('change', (change) => {
    const emitted = eventsOf(change);
    if (!emitted) return;
    const room = io.to(`task:${emitted.task._id}`);
    for (const [event, payload] of emitted.room) room.emit(event, payload);
    const lists = io.to(dashboardsOf(emitted.task));
    for (const [event, payload] of emitted.list) lists.emit(event, payload);
  });
}
process.once('SIGTERM', () => process.exit(0));
http.keepAliveTimeout = 120_000;
http.listen(Number(PORT), '127.0.0.1', BACKLOG);
