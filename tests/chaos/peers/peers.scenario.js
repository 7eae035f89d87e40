// Compares taskcast with Node's socket.io and its two Redis adapters: one table shows what each loses in the faults of a cluster.
import { faults } from '../support/cluster-faults.js';
import { ClusterTestbed } from '../support/cluster-testbed.js';
import { seconds } from '../support/testbed.js';
import { PeerTestbed } from './testbed.js';

/** There are few clients and a slow writer, because the comparison is about faults, not about performance. */
const SIZES = {
  short: { clients: 9, tasks: 6, roomsEach: 2, dashboards: 3, writes: 30, pause: 10 },
  long: { clients: 60, tasks: 30, roomsEach: 2, dashboards: 6, writes: 1000, pause: 3 },
};
const DOWN = 2;
const GATEWAYS = {
  taskcast: { Testbed: ClusterTestbed },
  'redis-streams-adapter': { Testbed: PeerTestbed, adapter: 'streams' },
  'redis-adapter': { Testbed: PeerTestbed, adapter: 'pubsub' },
};

const none = { name: 'no fault', strike: () => {} };
/** Only peers have this fault, because every node of taskcast follows the change stream itself. */
const follower = {
  name: 'kill -9 of the following process',
  async strike({ follower: process }) {
    await process.kill();
    await seconds(DOWN);
    await process.launch();
  },
};

const comparison = ({ name, strike, proxied }, gateway, { Testbed, adapter }) => {
  const run = async (ctx) => {
    // Most faults run without a proxy. A proxy accepts connections while Redis is down, and Node's client then loses its commands there.
    const testbed = await Testbed.start(ctx, { ...SIZES[ctx.long ? 'long' : 'short'], adapter, direct: !proxied });
    try {
      await testbed.populate();
      const spread = await testbed.connections();
      await testbed.write();
      await strike(testbed, ctx, spread);
      await testbed.moreWrites();
      await testbed.connected();
      await testbed.nodesConnected();
      const row = await testbed.judge();
      row.note = `${testbed.hit().length} reconnected; silence of the other clients ${testbed.longestSilence()} ms${testbed.behind ? `; ${testbed.behind} clients lack events` : ''}`;
      return row;
    } finally {
      await testbed.close();
    }
  };
  return { name: `${gateway}: ${name}`, short: run, long: run };
};

const [ours, peers] = [(adapter) => !adapter, Boolean].map((is) => Object.entries(GATEWAYS).filter(([, { adapter }]) => is(adapter)));
const compared = (faults, gateways) => gateways.flatMap(([name, gateway]) => faults.map((fault) => comparison(fault, name, gateway)));

export const unharmed = compared([none], peers);
export const scenarios = [...compared([none, ...faults, follower], peers), ...compared([none, ...faults], ours)];
