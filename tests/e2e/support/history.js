// Compares the events that a room receives with the events that the contract defines for a change.
import assert from 'node:assert/strict';

import { Client } from './client.js';
import { until } from './until.js';

const FENCE = 'fence';
let fences = 0;

/** A client in the task's room and on the dashboard. A fence entry shows that no more events of a change will arrive. */
export class History {
  static async of(gateway, token, collection, id) {
    const client = await Client.connect(gateway, token);
    const taskId = typeof id === 'string' ? id : id.toHexString();
    await client.joinDashboard();
    await client.join(taskId);
    client.received.length = 0;
    return new History(client, collection, id, taskId);
  }

  constructor(client, collection, id, taskId) {
    Object.assign(this, { client, collection, id, taskId });
  }

  /** Runs `writes` and then pushes a fence entry. All events before the fence come from `writes`. */
  async during(writes) {
    this.client.received.length = 0;
    await writes();
    const n = (fences += 1);
    await this.collection.updateOne({ _id: this.id }, { $push: { events: { eventType: FENCE, payload: { n }, createdAt: new Date() } } });
    const isFence = ({ event, payload }) => event === 'task:event_added' && payload.taskId === this.taskId && payload.event.payload.n === n;
    await until(() => this.client.received.some(isFence), () => `the fence; received: ${this.client.lastEvents()}`);
    return this.client.received.slice(0, this.client.received.findIndex(isFence));
  }

  /** The events that `writes` give in the task's room, each as [name, payload without the common fields]. */
  async room(writes) {
    const received = await this.during(writes);
    const own = received.filter(({ event, payload }) => /^task:(?!created)/.test(event) && payload.taskId === this.taskId);
    return own.map(({ event, payload }) => [event, withoutEnvelope(event, payload)]);
  }

  /** Asserts that `writes` give exactly `expected` in the task's room. This function adds the taskId. */
  async gives(expected, writes) {
    const got = await this.room(writes);
    assert.deepEqual(got, expected.map(([event, payload]) => [event, { taskId: this.taskId, ...payload }]));
    this.client.assertInOrder();
  }

  close() {
    this.client.close();
  }
}

function withoutEnvelope(event, payload) {
  const { eventId, occurredAt, updatedAt, ...rest } = payload;
  for (const [name, value] of Object.entries({ eventId, occurredAt })) assert.equal(typeof value, 'string', `${event}: ${name}`);
  assert.match(occurredAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.ok('updatedAt' in payload, `${event}: updatedAt`);
  return event === 'task:state' ? { taskId: payload.taskId, events: payload.events } : rest;
}
