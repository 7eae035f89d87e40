// The change stream, said to all servers through the adapter. Where it was is kept in a file: after a crash, what came
// after the last time that it was written is said again.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { dashboardsOf, summary } from './tasks.js';

const KEEP_EVERY = 100;
/** Ids, the fields of a summary, and what was changed: a long timeline does not travel with every change. */
const PIPELINE = [{ $project: { 'fullDocument.events': 0 } }];

export async function follow(io, tasks, folder) {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, 'resume-token');
  const startAfter = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
  let stream = tasks.watch(PIPELINE, { fullDocument: 'required', startAfter });
  let last = startAfter;
  setInterval(() => {
    if (!last) return;
    writeFileSync(`${file}.part`, JSON.stringify(last));
    renameSync(`${file}.part`, file);
  }, KEEP_EVERY);
  const take = (change) => {
    tell(io, change);
    last = change._id;
  };
  stream.on('change', take);
  // The driver resumes by itself; what it gives up is begun again at the last place.
  const again = (error) => {
    console.error('change stream:', error.message);
    stream.close().catch(() => {});
    setTimeout(() => {
      stream = tasks.watch(PIPELINE, { fullDocument: 'required', startAfter: last });
      stream.on('change', take).on('error', again);
    }, 500);
  };
  stream.on('error', again);
}

function tell(io, { operationType, fullDocument, updateDescription }) {
  if (operationType !== 'update') return;
  const { _id: taskId } = fullDocument;
  const fields = updateDescription.updatedFields;
  const room = io.to(`task:${taskId}`);
  const { title, status } = fields;
  room.emit('task:updated', { taskId, status, changed: { title } });
  // The first entry comes as the whole list.
  const entries = fields.events ?? Object.entries(fields).filter(([name]) => name.startsWith('events.')).map(([, entry]) => entry);
  for (const event of entries) room.emit('task:event_added', { taskId, event });
  io.to(dashboardsOf(fullDocument)).emit('dashboard:task_list_updated', summary(fullDocument));
}
