// The client of the contract's §3, without a socket: "replaces its copy on …:state and applies every other event".
import assert from 'node:assert/strict';

import { PAIRS, viewOf } from '../expected.js';

const OTHER_NAME = new Map(PAIRS.flatMap(([a, b]) => [[a, b], [b, a]]));

/** A client's copy of one room. It checks the order of the events. */
class Room {
  /** The last eventId of this room, which a resync sends as `since`. */
  last = null;

  constructor(name) {
    this.name = name;
  }

  /** Asserts that each event of the room comes once and in order. */
  advance(event, eventId) {
    assert.equal(typeof eventId, 'string', `${this.name}: ${event} has no eventId`);
    assert.ok(this.last === null || eventId > this.last, `${this.name}: ${event} ${eventId} came after ${this.last}`);
    this.last = eventId;
  }

  /** A state replaces the copy. Later events follow the state's own eventId. */
  restart(eventId) {
    this.last = eventId ?? null;
  }
}

/** A client's copy of one task. */
export class TaskCopy extends Room {
  view = null;
  /** True when the client has left the room because the task was deleted or is no longer visible. */
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

/** A client's copy of the dashboard's list. */
export class DashboardCopy extends Room {
  /** By task id. */
  tasks = new Map();
  counts = null;
  countsAt = null;
  states = 0;

  constructor() {
    super('dashboard');
  }

  /** When the state is an array, the event's second argument carries the counts and the eventId of the snapshot. */
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

/** Assigns fields. A field with one name of a pair also sets the other name. */
function assign(view, fields) {
  for (const [name, value] of Object.entries(fields)) {
    view[name] = value;
    const other = OTHER_NAME.get(name);
    if (other !== undefined && !(other in fields)) view[other] = value;
  }
}
