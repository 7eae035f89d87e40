// A replica set of three real mongods, and faults for it.
//
// Elections have MongoDB's defaults: electionTimeoutMillis 10 s, heartbeats every 2 s. Test commands are enabled for failpoints, and the
// cache and the oplog are small. Members and clients know each member by the port of its proxy.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';

import { mongod } from '../../e2e/support/paths.js';
import { freePort } from '../../e2e/support/ports.js';
import { killGroup, start } from '../../e2e/support/processes.js';
import { until } from '../../e2e/support/until.js';
import { MongoClient } from './packages.js';
import { Proxies } from './proxy.js';

const MEMBERS = 3;
/** The application name of the gateway's driver. */
export const GATEWAY = 'taskcast';

class Member {
  constructor(port, proxyPort) {
    Object.assign(this, { port, proxyPort, dir: mkdtempSync(join(tmpdir(), 'member-')) });
    this.address = `127.0.0.1:${proxyPort}`;
  }

  launch() {
    this.child = start(mongod(), [
      '--bind_ip', '127.0.0.1', '--port', String(this.port), '--dbpath', this.dir, '--unixSocketPrefix', this.dir, '--replSet', 'chaos',
      '--wiredTigerCacheSizeGB', '0.25', '--oplogSize', '200', '--setParameter', 'enableTestCommands=1',
      '--setParameter', 'diagnosticDataCollectionEnabled=false',
    ], { stdio: ['ignore', 'ignore', 'ignore'] });
  }

  signal(name) {
    process.kill(-this.child.pid, name);
  }

  /** Runs `body` with a connection to this member without its proxy. */
  async direct(body) {
    const client = await MongoClient.connect(`mongodb://127.0.0.1:${this.port}/?directConnection=true`, { serverSelectionTimeoutMS: 2000, connectTimeoutMS: 2000 });
    try {
      return await body(client.db('admin'));
    } finally {
      await client.close();
    }
  }

  hello() {
    return this.direct((admin) => admin.command({ hello: 1 }));
  }
}

export class ReplicaSet {
  static async start() {
    const set = new ReplicaSet();
    set.proxies = await Proxies.start();
    set.members = [];
    for (let n = 0; n < MEMBERS; n += 1) {
      const member = new Member(await freePort(), await freePort());
      await set.proxies.open(member.proxyPort, member.port);
      set.members.push(member);
      member.launch();
    }
    for (const member of set.members) await until(() => member.hello(), 'a member answers', 60_000);
    await set.members[0].direct((admin) => admin.command({
      replSetInitiate: { _id: 'chaos', members: set.members.map(({ address }, _id) => ({ _id, host: address })) },
    }));
    set.uri = `mongodb://${set.members.map(({ address }) => address).join(',')}/?replicaSet=chaos`;
    await set.waitUntilHealthy();
    return set;
  }

  /** Waits until there is one primary and two secondaries. */
  async waitUntilHealthy() {
    let answers = [];
    await until(async () => {
      answers = await Promise.all(this.members.map((member) => member.hello()));
      return answers.filter(({ isWritablePrimary }) => isWritablePrimary).length === 1 && answers.filter(({ secondary }) => secondary).length === MEMBERS - 1;
    }, () => `one primary, two secondaries: ${JSON.stringify(answers.map(({ isWritablePrimary, secondary, setName, info }) => ({ isWritablePrimary, secondary, setName, info })))}`, 90_000);
  }

  async primary() {
    return until(async () => {
      for (const member of this.members) if ((await member.hello().catch(() => null))?.isWritablePrimary) return member;
      return null;
    }, 'a primary', 60_000);
  }

  /** Runs a command on the primary's admin database. */
  async command(command) {
    return (await this.primary()).direct((admin) => admin.command(command));
  }

  /** Makes the primary step down and waits until there is another primary. */
  async stepDown() {
    const old = await this.primary();
    await old.direct((admin) => admin.command({ replSetStepDown: 20, secondaryCatchUpPeriodSecs: 10 })).catch((error) => {
      // The primary may close this connection when it steps down. Any other error is a failure of the test itself.
      if (error.code !== undefined && !/closed|not primary|InterruptedDueTo/i.test(error.message)) throw error;
    });
    await until(async () => (await this.primary()) !== old, 'another primary', 60_000);
  }

  /**
   * Sets `failCommand` on the primary, for the gateway's connections only. `data` is {failCommands, errorCode} or
   * {failCommands, closeConnection}.
   */
  fail(times, data) {
    return this.command({ configureFailPoint: 'failCommand', mode: times === 'alwaysOn' ? times : { times }, data: { appName: GATEWAY, ...data } });
  }

  healFailures() {
    return Promise.all(this.members.map((member) => member.direct((admin) => admin.command({ configureFailPoint: 'failCommand', mode: 'off' })).catch(() => {})));
  }

  /** Kills the cursors of the gateway's change streams; returns their number. */
  async killCursors() {
    return (await this.primary()).direct(async (admin) => {
      const operations = await admin.aggregate([
        { $currentOp: { idleCursors: true, allUsers: true } },
        { $match: { 'cursor.tailable': true, $or: [{ appName: GATEWAY }, { 'cursor.originatingCommand.pipeline.$changeStream': { $exists: true } }] } },
      ]).toArray();
      for (const { cursor, ns } of operations) {
        const [db, ...collection] = ns.split('.');
        await admin.client.db(db).command({ killCursors: collection.join('.'), cursors: [cursor.cursorId] });
      }
      return operations.length;
    });
  }

  /** A new database, and the settings of a gateway for it. */
  async database() {
    const name = `chaos_${randomBytes(6).toString('hex')}`;
    const client = await new MongoClient(this.uri, { appName: 'chaos' }).connect();
    const db = client.db(name);
    return {
      uri: this.uri,
      name,
      client,
      db,
      tasks: db.collection('tasks'),
      env: { MONGODB_URI: this.uri, MONGODB_DB: name },
      async close() {
        await db.dropDatabase();
        await client.close();
      },
    };
  }

  async stop() {
    for (const member of this.members) {
      killGroup(member.child);
      await member.child.exited;
      rmSync(member.dir, { recursive: true, force: true });
    }
    await this.proxies.stop();
  }
}
