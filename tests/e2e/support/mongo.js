// One real mongod as a replica set of one, and a fresh database for whoever asks.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';

import { MongoClient } from 'mongodb';

import { mongod } from './paths.js';
import { freePort } from './ports.js';
import { killGroup, start } from './processes.js';
import { until } from './until.js';

/** Starts a server; with `replicaSet: null` a standalone one. `extra`: more arguments. */
export async function startMongod({ replicaSet = 'rs0', oplogMegabytes = 300, extra = [] } = {}) {
  const port = await freePort();
  const dir = mkdtempSync(join(tmpdir(), 'taskcast-mongod-'));
  const launch = () => start(
    mongod(),
    ['--bind_ip', '127.0.0.1', '--port', String(port), '--dbpath', dir, '--unixSocketPrefix', dir,
      '--wiredTigerCacheSizeGB', '0.5', '--oplogSize', String(oplogMegabytes), '--setParameter', 'diagnosticDataCollectionEnabled=false',
      ...(replicaSet ? ['--replSet', replicaSet] : []), ...extra],
    { stdio: ['ignore', 'ignore', 'ignore'] },
  );
  let child = launch();
  const stop = async () => {
    killGroup(child);
    await child.exited;
    rmSync(dir, { recursive: true, force: true });
  };
  let client;
  try {
    client = await until(() => {
      // Not a reason to wait.
      if (child.exitCode !== null) return { failed: `mongod ended with ${child.exitCode}` };
      return MongoClient.connect(`mongodb://127.0.0.1:${port}/?directConnection=true`, { serverSelectionTimeoutMS: 500 });
    }, 'mongod answers', 60_000);
    if (client.failed) throw new Error(client.failed);
    const admin = client.db('admin');
    if (replicaSet) {
      const members = [{ _id: 0, host: `127.0.0.1:${port}` }];
      await admin.command({ replSetInitiate: { _id: replicaSet, members } });
      await until(async () => (await admin.command({ hello: 1 })).isWritablePrimary, 'a primary', 60_000);
    }
  } catch (error) {
    await stop();
    throw error;
  } finally {
    await client?.close?.();
  }
  const uri = `mongodb://127.0.0.1:${port}/${replicaSet ? `?replicaSet=${replicaSet}` : '?directConnection=true'}`;
  return {
    uri,
    stop,
    pid: () => child.pid,
    signal: (name) => process.kill(-child.pid, name),
    /** After a SIGKILL: the same server again, with what was on its disk. */
    async restart() {
      await child.exited;
      child = launch();
      const client = await until(() => MongoClient.connect(`mongodb://127.0.0.1:${port}/?directConnection=true`, { serverSelectionTimeoutMS: 500 }), 'mongod answers', 60_000);
      await until(async () => (await client.db('admin').command({ hello: 1 })).isWritablePrimary, 'a primary', 60_000);
      await client.close();
    },
  };
}

/** A database of one's own on the suite's server (run.js starts it), else on a server of one's own. */
export async function freshDatabase() {
  const given = process.env.TASKCAST_E2E_MONGODB_URI;
  const server = given ? { uri: given, stop: async () => {} } : await startMongod();
  const name = `e2e_${randomBytes(6).toString('hex')}`;
  const client = await new MongoClient(server.uri).connect();
  const db = client.db(name);
  return {
    uri: server.uri,
    name,
    client,
    db,
    tasks: db.collection('tasks'),
    /** What a gateway needs to know. */
    env: { MONGODB_URI: server.uri, MONGODB_DB: name },
    async close() {
      await db.dropDatabase();
      await client.close();
      await server.stop();
    },
  };
}
