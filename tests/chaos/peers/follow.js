// Reads the change stream and emits its changes to all servers through the adapter. A file keeps the resume token. After a crash, changes
// since the last write of that file are emitted again.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { dashboardsOf, summary } from './tasks.js';

const KEEP_EVERY = 100;
/** Leaves the timeline out of each change, because it may be long. */
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
  // The driver resumes by itself. When it gives up, a new stream starts after the last change.
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
  // MongoDB reports the first entry as the whole list.
  const entries = fields.events ?? Object.entries(fields).filter(([name]) => name.startsWith('events.')).map(([, entry]) => entry);
  for (const event of entries) room.emit('task:event_added', { taskId, event });
  io.to(dashboardsOf(fullDocument)).emit('dashboard:task_list_updated', summary(fullDocument));
}
