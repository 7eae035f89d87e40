// Starts a real mongod as a replica set of one member, and creates fresh databases.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';

import { MongoClient } from 'mongodb';

import { mongod } from './paths.js';
import { freePort } from './ports.js';
import { killGroup, start } from './processes.js';
import { until } from './until.js';

/** Starts a server; `replicaSet: null` gives a standalone server. `extra` are more arguments of mongod. */
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
      // When mongod has ended, waiting does not help.
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
    /** Starts the server again after a SIGKILL, with the data on its disk. */
    async restart() {
      await child.exited;
      child = launch();
      const client = await until(() => MongoClient.connect(`mongodb://127.0.0.1:${port}/?directConnection=true`, { serverSelectionTimeoutMS: 500 }), 'mongod answers', 60_000);
      await until(async () => (await client.db('admin').command({ hello: 1 })).isWritablePrimary, 'a primary', 60_000);
      await client.close();
    },
  };
}

/** A new database on the suite's server, which run.js starts, else on a new server. */
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
    /** The settings of a gateway for this database. */
    env: { MONGODB_URI: server.uri, MONGODB_DB: name },
    async close() {
      await db.dropDatabase();
      await client.close();
      await server.stop();
    },
  };
}
