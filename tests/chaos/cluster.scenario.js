// Three nodes behind nginx, and once behind HAProxy. A fault hits one node, Redis, or a connection to either. Clients of other nodes
// notice nothing.
import assert from 'node:assert/strict';

import { faults } from './support/cluster-faults.js';
import { assertSpread, inCluster } from './support/cluster-field.js';
import { Suspects } from './support/suspects.js';

function survived({ name, strike }, options = {}) {
  const run = (ctx) => inCluster(ctx, options, async (field) => {
    await field.populate();
    const spread = await assertSpread(field);
    await field.write();
    let missed;
    /** Disconnects a user while one node cannot learn of it. */
    const away = async () => {
      missed = await Suspects.on(field.nodes, 'meanwhile');
      await missed.turnOut();
      await missed.out(field.nodes.length - 1);
    };
    const hit = (await strike(field, { ...ctx, away }, spread)) ?? 0;
    if (missed) field.notes.push(`a disconnect that a node missed took effect ${await missed.out()} ms after the node's return`);
    await field.moreWrites();
    await field.acquainted();
    const suspects = await Suspects.on(field.nodes, 'suspect');
    const out = suspects.out();
    await suspects.turnOut();
    field.notes.unshift(`a disconnect took ${await out} ms`);
    const row = await field.judge();
    assert.equal(field.hit().length, hit, `clients that lost their connection; there were ${spread}`);
    row.note = `${hit} clients hit${hit < field.size.clients ? `; silence of the others ${field.calm()} ms` : ''}; ${field.notes.join('; ')}`;
    return row;
  });
  return { name: `cluster: ${name}`, short: run, long: run };
}

const rolling = faults.find(({ name }) => name === 'rolling SIGTERM');

export const scenarios = [
  ...faults.map((fault) => survived(fault)),
  // A rolling deploy behind the other balancer of deploy/.
  survived({ ...rolling, name: 'rolling SIGTERM behind HAProxy' }, { balancer: 'haproxy' }),
];
