// Runs the suite with Node's test runner and one mongod for all files, and removes everything afterwards.
//   node run.js [--socketioxide | --ws] [file…] all *.test.js without arguments
//                                               --socketioxide tests the other implementation of Socket.IO, --ws the plain WebSocket,
//                                               by default with the files that hold for each
import { readdirSync, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';

import { startMongod } from './support/mongo.js';
import { binary, PACKAGE } from './support/paths.js';
import { start } from './support/processes.js';

/** The suite ends after this time, even when a file hangs. */
const DEADLINE = 15 * 60_000;
/** How many files run at once: few, because a loaded machine is slow, and one more, because the long file mostly waits. */
const CONCURRENCY = process.env.TASKCAST_E2E_CONCURRENCY ?? String(Math.max(2, Math.min(4, availableParallelism())) + 1);
/** These files start first, so that the others run meanwhile. */
const SLOWEST = ['webhooks.test.js', 'jwks.test.js'];
/** These files run alone. */
const ALONE = ['handoff.test.js'];

/** These files hold for the plain WebSocket, too. */
const FOR_WS = ['balancers', 'handoff', 'handshake', 'payloads', 'privacy', 'resync', 'token-expiry'].map((name) => `${name}.test.js`);
/** These files hold for both implementations of Socket.IO. */
const FOR_BOTH = ['balancers', 'existing-client', 'handoff', 'handshake', 'payloads', 'privacy', 'resync', 'token-expiry'].map((name) => `${name}.test.js`);

const all = readdirSync(PACKAGE).filter((name) => name.endsWith('.test.js'));
const options = process.argv.slice(2);
const socketioxide = options.includes('--socketioxide');
const ws = options.includes('--ws');
const asked = options.filter((option) => !option.startsWith('--')).map((name) => basename(name));
const files = asked.length > 0 ? asked : socketioxide ? FOR_BOTH : ws ? FOR_WS : all;
const unknown = files.filter((name) => !all.includes(name));
if (unknown.length > 0) throw new Error(`no such test file: ${unknown.join(', ')}`);

console.log(`testing ${binary()}${socketioxide ? ' on socketioxide' : ws ? ' over /ws' : ''}`);
const temporary = mkdtempSync(join(tmpdir(), 'taskcast-e2e-run-'));
const mongod = await startMongod();
let failed = false;
const deadline = setTimeout(() => {
  console.log('end to end: FAILED, not finished within 15 minutes');
  process.exit(1);
}, DEADLINE);
try {
  const together = files.filter((name) => !ALONE.includes(name));
  for (const batch of [together, ...ALONE.filter((name) => files.includes(name)).map((name) => [name])]) {
    if (batch.length === 0) continue;
    batch.sort((a, b) => SLOWEST.includes(b) - SLOWEST.includes(a) || SLOWEST.indexOf(a) - SLOWEST.indexOf(b));
    const child = start(process.execPath,
      ['--test', '--test-reporter=spec', `--test-concurrency=${CONCURRENCY}`, ...batch.map((name) => resolve(PACKAGE, name))],
      { cwd: PACKAGE, env: { ...process.env, TMPDIR: temporary, TASKCAST_E2E_MONGODB_URI: mongod.uri, ...(socketioxide && { TASKCAST_E2E_TRANSPORT: 'socketioxide' }), ...(ws && { TASKCAST_E2E_CLIENT: 'ws' }) }, stdio: 'inherit' });
    const { code } = await child.exited;
    failed ||= code !== 0;
  }
} finally {
  clearTimeout(deadline);
  await mongod.stop();
  rmSync(temporary, { recursive: true, force: true });
}
console.log(failed ? 'end to end: FAILED' : 'end to end: passed');
process.exit(failed ? 1 : 0);
