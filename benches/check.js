// Checks whether a pure stage has become slower. It compares the ratio of two stages of the same run, so that the machine matters little.
//   node benches/check.js            after `cargo bench --bench stages`
//   node benches/check.js --write    saves the measured ratios as the baseline
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const BASELINE = fileURLToPath(new URL('baseline.json', import.meta.url));
const MEASURED = fileURLToPath(new URL('../target/criterion', import.meta.url));

/** The fastest sample, because other load on the machine can only add time. */
function nanoseconds(stage) {
  const { iters, times } = JSON.parse(readFileSync(join(MEASURED, stage, 'new/sample.json'), 'utf8'));
  return Math.min(...times.map((time, n) => time / iters[n]));
}

const { tolerance, ratios } = JSON.parse(readFileSync(BASELINE, 'utf8'));
const rows = ratios.map(({ stage, to, ratio }) => ({ stage, to, baseline: ratio, measured: Number((nanoseconds(stage) / nanoseconds(to)).toPrecision(3)) }));
console.table(rows);
if (process.argv.includes('--write')) {
  const measured = rows.map(({ stage, to, measured: ratio }) => ({ stage, to, ratio }));
  writeFileSync(BASELINE, `${JSON.stringify({ tolerance, ratios: measured }, null, 2)}\n`);
  process.exit(0);
}
const slower = rows.filter(({ baseline, measured }) => measured > baseline * tolerance);
for (const { stage, to, baseline, measured } of slower) console.error(`slower: ${stage}, ${measured} × ${to} instead of ${baseline}`);
process.exit(slower.length > 0 ? 1 : 0);
