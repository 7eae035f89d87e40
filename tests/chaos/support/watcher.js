// A client that records what it receives, for the checker. It is leaner than the e2e tests' Client, because hundreds run in one process.
import { until } from '../../e2e/support/until.js';
import { History, numberOf } from './checker.js';
import { io } from './packages.js';

/** The options of the existing client, from its useWebSocket. */
export const EXISTING = { reconnection: true, reconnectionDelay: 1000, reconnectionDelayMax: 5000, reconnectionAttempts: 5, transports: ['websocket', 'polling'] };
const MODERN = { reconnection: true, reconnectionDelay: 200, reconnectionDelayMax: 1000, transports: ['websocket'] };

/** Records when any client last received something, and the longest time without that. */
export class Silence {
  longest = 0;
  #last = null;

  record() {
    const now = performance.now();
    if (this.#last !== null) this.longest = Math.max(this.longest, now - this.#last);
    this.#last = now;
  }

  /** The time since any client last received something. */
  current() {
    return performance.now() - this.#last;
  }

  begin() {
    this.longest = 0;
    this.#last = performance.now();
  }
}

export class Watcher {
  entries = new Map();
  titles = new Map();
  listed = new Map();
  /** The number of received states by room ("dashboard" is a room), and the time of the last one. */
  states = new Map();
  stateAt = new Map();
  gone = new Set();
  forbidden = [];
  disordered = [];
  disconnects = [];
  refusals = [];
  recovered = [];
  acks = [];
  #last = new Map();

  /**
   * `tasks` are the ids of watched tasks; `allowed` are ids that it may receive. `kind` is its behaviour after a reconnect: "existing"
   * resyncs like the unmodified client, "since" requests the missed events of each room, "states" requests states.
   */
  constructor(gateway, token, { tasks, allowed, dashboard = false, kind = 'since', silence, options = {} }) {
    Object.assign(this, { tasks, allowed, dashboard, kind, silence });
    for (const id of tasks) for (const histories of [this.entries, this.titles]) histories.set(id, new History());
    this.socket = io(gateway.url, { auth: { token }, forceNew: true, ...(kind === 'existing' ? EXISTING : MODERN), ...options });
    this.socket.onAny((event, payload, more) => this.#receive(event, payload, more));
    this.socket.on('disconnect', (reason) => this.disconnects.push(reason));
    this.socket.on('connect_error', ({ message, description }) => this.refusals.push(`${message} ${description?.status ?? description?.message ?? description ?? ''}`));
    let before = false;
    this.socket.on('connect', () => {
      if (kind === 'existing') this.#resyncAsExisting();
      // A peer server with connection state recovery may have sent all missed events already.
      else if (before && !this.socket.recovered) this.#resync();
      before = true;
    });
  }

  get connected() {
    return this.socket.connected;
  }

  join() {
    const ask = (event, ...payload) => this.socket.emitWithAck(event, ...payload).then((answer) => this.acks.push({ event, payload, answer }));
    return Promise.all([...this.tasks.map((taskId) => ask('task:join', { taskId })), ...(this.dashboard ? [ask('dashboard:join')] : [])]);
  }

  /** Waits until each room has sent a state. */
  async ready() {
    await until(() => this.rooms().every((room) => this.states.get(room) > 0), () => `states: ${JSON.stringify({ rooms: this.rooms(), states: [...this.states], acks: this.acks })}`, 60_000);
  }

  rooms() {
    return [...this.tasks, ...(this.dashboard ? ['dashboard'] : [])];
  }

  #resyncAsExisting() {
    this.socket.emit('resync_requested');
    for (const taskId of this.tasks) this.socket.emit('resync_requested', { taskIds: [taskId] });
  }

  #resync() {
    if (this.kind === 'states') {
      this.socket.emit('resync_requested', { taskIds: this.tasks, dashboard: this.dashboard });
      return;
    }
    for (const room of this.rooms()) {
      const names = room === 'dashboard' ? { dashboard: true } : { taskIds: [room] };
      this.socket.emit('resync_requested', { ...names, since: this.#last.get(room) }, ({ ok, recovered }) => this.recovered.push(ok && recovered));
    }
  }

  #receive(event, payload, more) {
    this.silence?.record();
    if (event === 'dashboard:task_count_changed' || event === 'error') return;
    if (event === 'dashboard:state') {
      this.listed = new Map();
      this.#state('dashboard', more?.eventId);
      for (const { taskId, title } of payload) {
        this.#permitted(taskId, event);
        this.#list(taskId).state(numberOf(title));
      }
      return;
    }
    const id = payload.taskId;
    this.#permitted(id, event);
    if (event === 'task:state') {
      this.#state(id, payload.eventId);
      this.gone.delete(id);
      this.entries.get(id)?.state(payload.events.map((one) => one.payload.n), payload.eventsOmitted);
      this.titles.get(id)?.state(numberOf(payload.title));
      return;
    }
    const room = event.startsWith('dashboard:') || event === 'task:created' ? 'dashboard' : id;
    const last = this.#last.get(room);
    if (last !== undefined && payload.eventId <= last) this.disordered.push(`${event} ${payload.eventId} after ${last}`);
    this.#last.set(room, payload.eventId);
    if (event === 'task:event_added') this.entries.get(id)?.event(payload.event.payload.n);
    if (event === 'task:updated' && 'title' in payload.changed) this.titles.get(id)?.event(numberOf(payload.changed.title));
    if (event === 'dashboard:task_list_updated') {
      const history = this.listed.get(id);
      // The first update of a new task is its state.
      if (history) history.event(numberOf(payload.title));
      else this.#list(id).state(numberOf(payload.title));
    }
    if (event === 'dashboard:task_removed') this.listed.delete(id);
    if (event === 'task:deleted') this.gone.add(id);
  }

  #list(id) {
    if (!this.listed.has(id)) this.listed.set(id, new History());
    return this.listed.get(id);
  }

  #state(room, eventId) {
    this.states.set(room, (this.states.get(room) ?? 0) + 1);
    this.stateAt.set(room, performance.now());
    this.#last.set(room, eventId);
  }

  #permitted(id, event) {
    if (!this.allowed.has(id)) this.forbidden.push(`${event} ${id}`);
  }

  /** Returns whether the last write of each of its tasks has arrived. `truth` are numbers by task id. */
  upToDate(truth) {
    const last = (id) => truth.get(id).at(-1) ?? 0;
    return this.tasks.every((id) => this.entries.get(id).last === last(id) && this.titles.get(id).last === last(id))
      && (!this.dashboard || [...this.allowed].every((id) => this.listed.get(id)?.last === last(id)));
  }

  countFaults(truth, counts) {
    for (const id of this.tasks) {
      this.entries.get(id).countFaults(truth.get(id), counts);
      this.titles.get(id).countFaults(truth.get(id), counts);
    }
    if (this.dashboard) for (const id of this.allowed) (this.listed.get(id) ?? new History()).countFaults(truth.get(id), counts);
    counts.forbidden += this.forbidden.length;
    counts.outOfOrder += this.disordered.length;
  }

  close() {
    this.socket.disconnect();
  }
}
