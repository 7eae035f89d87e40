// Where things are: the binary under test, the database server, what other people wrote.
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const PACKAGE = resolve(dirname(fileURLToPath(import.meta.url)), '..');
export const REPO = resolve(PACKAGE, '../..');

export function binary() {
  const path = process.env.TASKCAST_BIN ?? join(REPO, 'target/debug/taskcast');
  if (!existsSync(path)) throw new Error(`${path} is not there: run "cargo build", or set TASKCAST_BIN`);
  return resolve(path);
}

export function mongod() {
  const path = process.env.TASKCAST_TEST_MONGOD ?? join(REPO, 'target/test-deps/mongod');
  if (!existsSync(path)) throw new Error(`${path} is not there: run "make test-deps", or set TASKCAST_TEST_MONGOD`);
  return resolve(path);
}

/** The existing client's components, which are no part of this repository. */
export function existingClient() {
  const shared = process.env.TASKCAST_SHARED ?? resolve(REPO, '../shared');
  const path = join(shared, 'existing-client');
  return existsSync(path) ? path : null;
}
