// Paths of the binary under test, of servers and tools, and of the existing client.
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const PACKAGE = resolve(dirname(fileURLToPath(import.meta.url)), '..');
export const REPO = resolve(PACKAGE, '../..');

export function binary() {
  const path = process.env.TASKCAST_BIN ?? join(REPO, 'target/debug/taskcast');
  if (!existsSync(path)) throw new Error(`${path} does not exist: run "cargo build", or set TASKCAST_BIN`);
  return resolve(path);
}

function server(name, variable) {
  const path = process.env[variable] ?? join(REPO, 'target/test-deps', name);
  if (!existsSync(path)) throw new Error(`${path} does not exist: run "make test-deps", or set ${variable}`);
  return resolve(path);
}

export const mongod = () => server('mongod', 'TASKCAST_TEST_MONGOD');
export const redisServer = () => server('redis-server', 'TASKCAST_TEST_REDIS');
export const nginx = () => server('nginx', 'TASKCAST_TEST_NGINX');
export const haproxy = () => server('haproxy', 'TASKCAST_TEST_HAPROXY');
export const kubectl = () => server('kubectl', 'TASKCAST_TEST_KUBECTL');

/** The folder with the Python packages of requirements.txt. */
export const python = () => server('python', 'TASKCAST_TEST_PYTHON');

/** The existing client's components, which are not part of this repository; null when they are not on this machine. */
export function existingClient() {
  const shared = process.env.TASKCAST_SHARED ?? resolve(REPO, '../shared');
  const path = join(shared, 'existing-client');
  return existsSync(path) ? path : null;
}
