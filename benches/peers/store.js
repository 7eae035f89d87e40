// Creates the tasks in MongoDB before a server starts.
import { ObjectId } from 'mongodb';

import { freshDatabase } from '../../tests/e2e/support/mongo.js';

export const objectId = (hex) => new ObjectId(hex);

/** A new database with tasks that the load generator's writers know by their ids. */
export async function withTasks({ tasks, orgs = 1 }) {
  const database = await freshDatabase();
  await database.db.createCollection('tasks', { changeStreamPreAndPostImages: { enabled: true } });
  await database.tasks.createIndexes([{ key: { orgId: 1 } }, { key: { createdBy: 1 } }, { key: { createdAt: -1 } }]);
  const begun = Date.now();
  if (tasks > 0) await database.tasks.insertMany(Array.from({ length: tasks }, (_, n) => {
    const time = new Date(begun - n * 1000);
    return {
      _id: new ObjectId((n + 1).toString(16).padStart(24, '0')), title: `Task ${n}`, description: 'Something is to be done, and this says what.', status: 'received', createdBy: 'boss', creatorName: 'Boss',
      orgId: `o${n % orgs}`, isPrivate: false, repo: 'acme/app', issueNumber: n, issueUrl: `https://example.com/acme/app/issues/${n}`, githubBranch: `task-${n}`, createdAt: time, updatedAt: time,
      events: [{ eventType: 'received', payload: { from: 'chat' }, createdAt: time }],
    };
  }));
  return database;
}
