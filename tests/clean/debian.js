// Debians to work in, below target/: made once for each list of packages.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { REPO } from '../e2e/support/paths.js';

const SCRIPT = fileURLToPath(new URL('base.sh', import.meta.url));

export const CLEAN = join(REPO, 'target/clean');
export const SUITE = process.env.SUITE ?? 'trixie';

/** The folder of a Debian with these packages; npm's go in where npm is one of Debian's. */
export function debian(packages, fromNpm = [], suite = SUITE) {
  if (process.getuid() !== 0) throw new Error('it needs root');
  const key = createHash('sha256').update(JSON.stringify([suite, packages, fromNpm, readFileSync(SCRIPT, 'utf8')])).digest('hex').slice(0, 12);
  const folder = join(CLEAN, `${suite}-${key}`);
  if (!existsSync(folder)) {
    console.log(`a Debian ${suite} with ${packages.join(' ')}`);
    execFileSync(SCRIPT, [folder, suite, packages.join(' '), fromNpm.join(' ')], { stdio: ['ignore', 'inherit', 'inherit'] });
  }
  return folder;
}
