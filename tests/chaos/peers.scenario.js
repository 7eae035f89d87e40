// Checks that the servers of `make chaos-peers` start and deliver, so that the comparison can be repeated at any time.
import assert from 'node:assert/strict';

import { unharmed } from './peers/peers.scenario.js';

export const scenarios = unharmed.map(({ name, short }) => {
  const run = async (ctx) => {
    const row = await short(ctx);
    assert.equal(row.lost + row.outOfOrder + row.forbidden, 0, JSON.stringify(row));
    return row;
  };
  return { name: `peers: ${name}`, short: run, long: run };
});
