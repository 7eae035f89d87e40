// A good plain gateway with Node's socket.io, for the same clients and the same database. ROLE=serve is one of the servers. ROLE=follow is
// the one process that follows the change stream and emits its changes through Redis. ADAPTER is streams or pubsub.
//
// It uses connection state recovery when the adapter supports it, post-images, rooms that are joined before their state is read, a longer
// stream than the adapter's default, Redis commands that wait while Redis is down, and a resume token on disk.
import { createServer } from 'node:http';

import { createAdapter as pubsub } from '@socket.io/redis-adapter';
import { createAdapter as streams } from '@socket.io/redis-streams-adapter';
import { jwtVerify } from 'jose';
import { MongoClient } from 'mongodb';
import { createClient } from 'redis';
import { Server } from 'socket.io';

import { follow } from './follow.js';
import { serve } from './serve.js';

const { ADAPTER, DATA_DIR, JWT_SECRET, MONGODB_DB, MONGODB_URI, PORT, REDIS_URL, ROLE } = process.env;
const RECOVERY = { maxDisconnectionDuration: 120_000 };
const STREAM_LENGTH = 100_000;
const SERVER_COUNT_TIMEOUT_MS = 2000;

// The adapters do not await their publishes. Without this handler, a failure of Redis would end the process.
process.on('unhandledRejection', (error) => console.error('unhandled:', error.message));

async function redis() {
  const client = createClient({ url: REDIS_URL, pingInterval: 1000, socket: { reconnectStrategy: (retries) => Math.min(50 * 2 ** retries, 1000) } });
  client.on('error', (error) => console.error('redis:', error.message));
  await client.connect();
  return client;
}

const database = (await new MongoClient(MONGODB_URI).connect()).db(MONGODB_DB);
const key = new TextEncoder().encode(JWT_SECRET);
const http = createServer(answer);
const io = new Server(http, {
  serveClient: false,
  cors: { origin: true },
  adapter: ADAPTER === 'streams' ? streams(await redis(), { maxLen: STREAM_LENGTH }) : pubsub(await redis(), await redis()),
  ...(ADAPTER === 'streams' ? { connectionStateRecovery: RECOVERY } : {}),
});
io.use(async (socket, next) => {
  try {
    const { payload } = await jwtVerify(socket.handshake.auth.token, key);
    socket.data.user = { id: payload.sub, orgId: payload.orgId };
    next();
  } catch {
    next(new Error('unauthorized'));
  }
});

let draining = false;
const tasks = database.collection('tasks');
if (ROLE === 'follow') await follow(io, tasks, DATA_DIR);
else serve(io, tasks);
http.listen(Number(PORT), '127.0.0.1');

process.once('SIGTERM', () => {
  draining = true;
  io.close(() => process.exit(0));
  // The exit does not wait for an unreachable Redis.
  setTimeout(() => process.exit(0), 5000);
});

/** `/api/health` with the fields that the balancer and the tests read. */
async function answer(request, response) {
  if (request.url !== '/api/health') return void response.writeHead(404).end();
  const late = new Promise((resolve) => setTimeout(resolve, SERVER_COUNT_TIMEOUT_MS, 0));
  const servers = await Promise.race([io.of('/').adapter.serverCount().catch(() => 0), late]);
  response.writeHead(draining ? 503 : 200, { 'content-type': 'application/json' });
  response.end(JSON.stringify({
    status: draining ? 'draining' : 'ok',
    websocket: { connections: io.of('/').sockets.size },
    relay: { epoch: 1 },
    cluster: { ok: servers > 0, nodes: Array.from({ length: servers }, () => ({})) },
  }));
}
