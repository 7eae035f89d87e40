// The client of the contract's §3, without a socket: "replaces its copy on …:state and applies every other event".
import assert from 'node:assert/strict';

import { PAIRS, viewOf } from '../expected.js';

const OTHER_NAME = new Map(PAIRS.flatMap(([a, b]) => [[a, b], [b, a]]));

/** What one client knows of one room, and the order in which it was told. */
class Room {
  /** The last eventId in this room: what a resync gives as `since`. */
  last = null;

  constructor(name) {
    this.name = name;
  }

  /** Every event of a room comes once and in order. */
  advance(event, eventId) {
    assert.equal(typeof eventId, 'string', `${this.name}: ${event} has no eventId`);
    assert.ok(this.last === null || eventId > this.last, `${this.name}: ${event} ${eventId} came after ${this.last}`);
    this.last = eventId;
  }

  /** A state starts anew, from its own position. */
  restart(eventId) {
    this.last = eventId ?? null;
  }
}

/** One task as a client has it. */
export class TaskCopy extends Room {
  view = null;
  /** Out of the room: deleted, or no longer visible. */
  gone = false;
  states = 0;

  constructor(taskId) {
    super(`task:${taskId}`);
    this.taskId = taskId;
  }

  apply(event, payload) {
    if (event === 'task:state') {
      assert.equal(payload._id, this.taskId);
      this.restart(payload.eventId);
      this.view = viewOf(payload);
      this.gone = false;
      this.states += 1;
      return;
    }
    this.advance(event, payload.eventId);
    assert.ok(this.view, `${this.name}: ${event} before any state`);
    assert.ok(!this.gone, `${this.name}: ${event} after task:deleted`);
    if (event === 'task:deleted') {
      this.gone = true;
      this.view = null;
      return;
    }
    if ('updatedAt' in payload) this.view.updatedAt = payload.updatedAt;
    if (event === 'task:event_added') {
      this.view.events = [...this.view.events, payload.event];
    } else if (event === 'task:updated') {
      assign(this.view, payload.changed);
    } else {
      const { taskId, eventId, occurredAt, ...fields } = payload;
      assign(this.view, fields);
    }
  }
}

/** The list as a client has it. */
export class DashboardCopy extends Room {
  /** By task id. */
  tasks = new Map();
  counts = null;
  countsAt = null;
  states = 0;

  constructor() {
    super('dashboard');
  }

  /** An array has no room for the counts and the eventId of its snapshot: they are the event's second argument. */
  apply(event, payload, more = payload) {
    if (event === 'dashboard:state') {
      const tasks = Array.isArray(payload) ? payload : payload.tasks;
      assert.equal(typeof more.eventId, 'string', 'dashboard:state has no eventId');
      this.restart(more.eventId);
      this.counts = more.counts;
      this.countsAt = more.eventId;
      this.tasks = new Map(tasks.map((task) => [task.taskId, viewOf(task)]));
      this.states += 1;
      return;
    }
    if (event === 'dashboard:task_count_changed') {
      const { eventId, occurredAt, updatedAt, ...counts } = payload;
      assert.ok(this.countsAt === null || eventId >= this.countsAt, `counts ${eventId} came after ${this.countsAt}`);
      this.countsAt = eventId;
      this.counts = counts;
      return;
    }
    this.advance(event, payload.eventId);
    if (event === 'dashboard:task_list_updated') this.tasks.set(payload.taskId, viewOf(payload));
    if (event === 'dashboard:task_removed') this.tasks.delete(payload.taskId);
  }
}

/** Assigns fields; an event that carries one name of a pair means both. */
function assign(view, fields) {
  for (const [name, value] of Object.entries(fields)) {
    view[name] = value;
    const other = OTHER_NAME.get(name);
    if (other !== undefined && !(other in fields)) view[other] = value;
  }
}
