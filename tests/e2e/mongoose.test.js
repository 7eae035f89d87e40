// The writes of an existing backend: Mongoose models, saved the way such backends save them.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import mongoose from 'mongoose';

import { Client } from './support/client.js';
import { Gateway } from './support/gateway.js';
import { History } from './support/history.js';
import { freshDatabase } from './support/mongo.js';
import { member } from './support/tokens.js';
import { test } from './support/scenario.js';
import { settles } from './support/until.js';
import { fullView } from './expected.js';

const schema = new mongoose.Schema({
  title: String,
  llmSummary: String,
  description: String,
  status: { type: String, default: 'received' },
  createdBy: { type: mongoose.Schema.Types.ObjectId, required: true },
  creatorName: String,
  orgId: String,
  isPrivate: { type: Boolean, default: false },
  events: [{ eventType: String, payload: mongoose.Schema.Types.Mixed, createdAt: { type: Date, default: Date.now } }],
  repo: String,
  githubIssueNumber: Number,
  githubIssueUrl: String,
  githubBranch: String,
  githubPrNumber: Number,
  githubPrUrl: String,
  prTitle: String,
  prState: String,
  mergeCommitSha: String,
  mergedAt: Date,
  clarificationQuestions: [String],
  clarificationAnswers: { type: [String], default: undefined },
  errorMessage: String,
}, { timestamps: true });

let database;
let connection;
let Task;
let gateway;
let token;

before(async () => {
  database = await freshDatabase();
  connection = await mongoose.createConnection(database.uri, { dbName: database.name }).asPromise();
  Task = connection.model('Task', schema);
  await Task.init();
  gateway = await Gateway.start(database.env);
  token = await member('watcher');
});
after(async () => {
  await gateway?.stop();
  await connection?.close();
  await database?.close();
});

const create = (fields = {}) => Task.create({ title: 'By Mongoose', createdBy: new mongoose.Types.ObjectId(), creatorName: 'Mo', orgId: 'acme', ...fields });

/** Runs `body` with a client that watches a new task. At the end, the client's copy must equal the document. */
async function watched(body) {
  const task = await create();
  const history = await History.of(gateway, token, database.tasks, task._id);
  try {
    // The names of the room's events; `+` and the event type for a timeline entry.
    const names = async (writes) => (await history.room(writes)).map(([event, payload]) => (event === 'task:event_added' ? `+${payload.event.eventType}` : event));
    await body({ task, history, names });
    await settles(async () => {
      const view = history.client.copy(history.taskId).view;
      const document = await database.tasks.findOne({ _id: task._id });
      assert.deepEqual(view, { ...fullView(document), updatedAt: view.updatedAt });
    });
    history.client.assertInOrder();
  } finally {
    history.close();
  }
}

test('the dashboard receives a created task', async () => {
  const client = await Client.connect(gateway, token);
  await client.joinDashboard();
  const task = await create({ title: undefined, llmSummary: 'Summed up' });
  const created = await client.waitForEvent('task:created', ({ taskId }) => taskId === task.id);
  assert.deepEqual([created.title, created.creator, created.status, created.createdAt], ['Summed up', 'Mo', 'received', task.createdAt.toISOString()]);
  client.close();
});

test('save() of changed fields, of a pushed entry, or of both gives their events', () => watched(async ({ task, names }) => {
  task.status = 'analyzing';
  assert.deepEqual(await names(() => task.save()), ['task:analyzing']);
  task.events.push({ eventType: 'analysis', payload: { by: 'llm' } });
  assert.deepEqual(await names(() => task.save()), ['+analysis']);
  // The loaded document does not have the fence entries of the history. $push works all the same.
  const fresh = await Task.findById(task._id);
  fresh.status = 'dispatched';
  fresh.githubIssueNumber = 12;
  fresh.githubIssueUrl = 'https://x/12';
  fresh.events.push({ eventType: 'one', payload: {} }, { eventType: 'two', payload: {} });
  assert.deepEqual(await names(() => fresh.save()), ['task:dispatched', '+one', '+two']);
}));

test('five saves and three pushes of one document, each awaited, give each event in order', () => watched(async ({ task, names }) => {
  const got = await names(async () => {
    for (const status of ['analyzing', 'dispatched', 'coding', 'pr_open', 'merged']) {
      task.status = status;
      await task.save();
      if (['dispatched', 'coding', 'pr_open'].includes(status)) await Task.updateOne({ _id: task._id }, { $push: { events: { eventType: status, payload: {} } } });
    }
  });
  assert.deepEqual(got, ['task:analyzing', 'task:dispatched', '+dispatched', 'task:coding', '+coding', 'task:pr_opened', '+pr_open', 'task:pr_merged']);
}));

test('concurrent saves of several loaded documents give their events in the order of the writes', () => watched(async ({ task, names }) => {
  const copies = await Promise.all(['analyzing', 'dispatched', 'coding'].map(async (status) => {
    const copy = await Task.findById(task._id);
    copy.status = status;
    copy.events.push({ eventType: `to ${status}`, payload: {} });
    return copy;
  }));
  const got = await names(() => Promise.all(copies.map((copy) => copy.save())));
  const ORDER = { analyzing: 'task:analyzing', dispatched: 'task:dispatched', coding: 'task:coding' };
  const { events } = await Task.findById(task._id);
  const written = events.map(({ eventType }) => eventType).filter((name) => name.startsWith('to ')).map((name) => name.slice(3));
  assert.equal(written.length, 3);
  assert.deepEqual(got, written.flatMap((status) => [ORDER[status], `+to ${status}`]));
}));

test('findOneAndUpdate, updateOne with $push $each, and findByIdAndUpdate give events', () => watched(async ({ task, names }) => {
  assert.deepEqual(await names(() => Task.findOneAndUpdate({ _id: task._id }, { status: 'coding' }, { returnDocument: 'after' })), ['task:coding']);
  assert.deepEqual(await names(() => Task.updateOne({ _id: task._id }, { $push: { events: { $each: [{ eventType: 'a', payload: {} }, { eventType: 'b', payload: { n: 1 } }] } } })), ['+a', '+b']);
  assert.deepEqual(await names(() => Task.findByIdAndUpdate(task._id, { $set: { prState: 'draft' } })), ['task:updated']);
  assert.deepEqual(await names(() => Task.updateOne({ _id: task._id }, { description: 'only the hidden and updatedAt' })), []);
}));

test('an edited entry, a pulled entry, and a replaced array give a state', () => watched(async ({ task, names }) => {
  task.events.push({ eventType: 'a', payload: { n: 1 } }, { eventType: 'b', payload: { n: 2 } });
  assert.deepEqual(await names(() => task.save()), ['+a', '+b']);
  let fresh = await Task.findById(task._id);
  fresh.events[0].payload = { n: 100 };
  fresh.markModified('events');
  assert.deepEqual(await names(() => fresh.save()), ['task:state']);
  fresh = await Task.findById(task._id);
  fresh.events.pull(fresh.events[1]._id);
  assert.deepEqual(await names(() => fresh.save()), ['task:state']);
  fresh = await Task.findById(task._id);
  fresh.events = [{ eventType: 'only', payload: {} }];
  assert.deepEqual(await names(() => fresh.save()), ['task:state']);
  // The replacement lacks the entry that the history has written meanwhile.
  const replaced = await names(() => Task.replaceOne({ _id: task._id }, { ...fresh.toObject(), title: 'Replaced' }));
  assert.ok(replaced.includes('task:state'), String(replaced));
}));

test('questions and answers of a task give their events', () => watched(async ({ task, names, history }) => {
  task.status = 'needs_clarification';
  task.clarificationQuestions = ['Which?'];
  assert.deepEqual(await names(() => task.save()), ['task:clarification_needed']);
  assert.deepEqual(history.client.copy(task.id).view.questions, ['Which?']);
  task.status = 'analyzing';
  task.clarificationAnswers = ['That'];
  assert.deepEqual(await names(() => task.save()), ['task:clarified', 'task:analyzing']);
}));

test('a transaction and a deleted document give their events', async () => {
  const task = await create();
  const history = await History.of(gateway, token, database.tasks, task._id);
  const got = await history.room(() => connection.transaction(async (session) => {
    const loaded = await Task.findById(task._id).session(session);
    loaded.status = 'coding';
    await loaded.save({ session });
    loaded.events.push({ eventType: 'in it', payload: {} });
    await loaded.save({ session });
  }));
  assert.deepEqual(got.map(([event]) => event), ['task:coding', 'task:event_added']);
  await Task.findByIdAndDelete(task._id);
  await history.client.waitForEvent('task:deleted');
  await history.client.waitForEvent('dashboard:task_removed', ({ taskId }) => taskId === task.id);
  history.close();
});
