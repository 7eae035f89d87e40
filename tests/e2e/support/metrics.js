// Parses a page of metrics strictly.
import assert from 'node:assert/strict';

const SAMPLE = /^([a-z_]+)(?:\{((?:[a-z]+="[^"\\]*",?)+)\})? (\S+)$/;

export class Page {
  /** By family: {type, help}. */
  families = new Map();
  /** By name and labels, sorted. */
  samples = new Map();

  constructor(text) {
    for (const line of text.trimEnd().split('\n')) {
      const [, what, name, rest] = line.match(/^# (HELP|TYPE) (\S+) (.+)$/) ?? [];
      if (what === 'HELP') {
        assert.ok(!this.families.has(name), `${name} appears twice`);
        this.families.set(name, { help: rest });
      } else if (what === 'TYPE') {
        this.families.get(name).type = rest;
      } else {
        const [, sample, labels = '', value] = line.match(SAMPLE) ?? assert.fail(`not a sample: ${line}`);
        const [name] = [sample, sample.replace(/_(sum|count|bucket)$/, '')].filter((name) => this.families.has(name));
        assert.ok(name, `sample without HELP and TYPE: ${line}`);
        const sorted = labels.split(',').filter(Boolean).sort().join(',');
        this.samples.set(sorted ? `${sample}{${sorted}}` : sample, Number(value));
      }
    }
    for (const [name, { type, help }] of this.families) assert.ok(type && help, name);
  }

  /** One sample; `labels` in any order. 0 when there is none yet. */
  get(name, labels = {}) {
    const sorted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`).sort().join(',');
    return this.samples.get(sorted ? `${name}{${sorted}}` : name) ?? 0;
  }

  /** The increase of a sample since an earlier page. */
  since(before, name, labels) {
    return this.get(name, labels) - before.get(name, labels);
  }
}

export async function scrape(url, token) {
  const answer = await fetch(`${url}/metrics`, { headers: token ? { authorization: `Bearer ${token}` } : {} });
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get('content-type'), /^text\/plain; version=0\.0\.4/);
  return new Page(await answer.text());
}
