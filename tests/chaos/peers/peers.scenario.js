// The faults of a cluster, for taskcast and for Node's socket.io with either of its Redis adapters: what each loses, in one table.
import { faults } from '../support/cluster-faults.js';
import { ClusterField } from '../support/cluster-field.js';
import { seconds } from '../support/field.js';
import { PeerField } from './field.js';

/** Fewer clients and a writer that breathes: what is compared is what a fault does, not who gets along with less of the machine. */
const SIZES = {
  short: { clients: 9, tasks: 6, roomsEach: 2, dashboards: 3, writes: 30, pause: 10 },
  long: { clients: 60, tasks: 30, roomsEach: 2, dashboards: 6, writes: 1000, pause: 3 },
};
const DOWN = 2;
const GATEWAYS = {
  taskcast: { Field: ClusterField },
  'redis-streams-adapter': { Field: PeerField, adapter: 'streams' },
  'redis-adapter': { Field: PeerField, adapter: 'pubsub' },
};

const none = { name: 'no fault', strike: () => {} };
/** In taskcast every node follows. */
const follower = {
  name: 'kill -9 of the following process',
  async strike({ follower: process }) {
    await process.kill();
    await seconds(DOWN);
    await process.launch();
  },
};

const comparison = ({ name, strike, proxied }, gateway, { Field, adapter }) => {
  const run = async (ctx) => {
    // A proxy accepts a connection before it knows that Redis is gone, and Node's client writes into it what it should have kept.
    const field = await Field.start(ctx, { ...SIZES[ctx.long ? 'long' : 'short'], adapter, direct: !proxied });
    try {
      await field.populate();
      const spread = await field.connections();
      await field.write();
      await strike(field, ctx, spread);
      await field.moreWrites();
      await field.connected();
      await field.acquainted();
      const row = await field.judge();
      row.note = `${field.hit().length} reconnected; silence of the others ${field.calm()} ms${field.behind ? `; ${field.behind} stay behind` : ''}`;
      return row;
    } finally {
      await field.close();
    }
  };
  return { name: `${gateway}: ${name}`, short: run, long: run };
};

const [ours, peers] = [(adapter) => !adapter, Boolean].map((is) => Object.entries(GATEWAYS).filter(([, { adapter }]) => is(adapter)));
const compared = (faults, gateways) => gateways.flatMap(([name, gateway]) => faults.map((fault) => comparison(fault, name, gateway)));

export const unharmed = compared([none], peers);
export const scenarios = [...compared([none, ...faults, follower], peers), ...compared([none, ...faults], ours)];
