// Answers the events of clients. A client joins a room before its state is read, so a change in between is sent twice instead of never.
import { canSee, state, summary } from './tasks.js';

const NOT_FOUND = { code: 'not_found' };

export function serve(io, tasks) {
  io.on('connection', (socket) => {
    const { user } = socket.data;

    async function task(id) {
      await socket.join(`task:${id}`);
      const found = await tasks.findOne({ _id: id });
      if (found && canSee(user, found)) {
        socket.emit('task:state', state(found));
        return { ok: true };
      }
      await socket.leave(`task:${id}`);
      return { ok: false, error: NOT_FOUND };
    }

    async function dashboard() {
      await socket.join([`dashboard:user:${user.id}`, `dashboard:org:${user.orgId}`]);
      const visible = { $or: [{ createdBy: user.id }, { orgId: user.orgId, isPrivate: { $ne: true } }] };
      const list = await tasks.find(visible, { projection: { events: 0 } }).sort({ createdAt: -1 }).limit(500).toArray();
      socket.emit('dashboard:state', list.map(summary));
      return { ok: true };
    }

    const on = (event, handle) => socket.on(event, async (...args) => {
      const ack = typeof args.at(-1) === 'function' ? args.pop() : () => {};
      ack(await handle(args[0] ?? {}).catch((error) => ({ ok: false, error: { code: 'unavailable', message: error.message } })));
    });
    on('task:join', ({ taskId }) => task(taskId));
    on('dashboard:join', dashboard);
    on('resync_requested', async ({ taskIds, dashboard: listed }) => {
      const rooms = [...socket.rooms];
      const ids = taskIds ?? rooms.filter((room) => room.startsWith('task:')).map((room) => room.slice('task:'.length));
      await Promise.all(ids.map(task));
      if (listed ?? (!taskIds && rooms.some((room) => room.startsWith('dashboard:')))) await dashboard();
      return { ok: true };
    });
  });
}
