// The existing React client's own components run unmodified against the gateway. The page that they show must equal the database.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { ObjectId } from 'mongodb';

import { Gateway } from './support/gateway.js';
import { freshDatabase } from './support/mongo.js';
import { existingClient } from './support/paths.js';
import { bundle, Tab } from './support/tab.js';
import { member } from './support/tokens.js';
import { test } from './support/scenario.js';
import { settles, until } from './support/until.js';
import { fullView, summary } from './expected.js';

const components = existingClient();
const skip = components ? false : 'the existing client is not on this machine; set TASKCAST_SHARED';

let database;
let gateway;
let tasks;
let tabs = [];

before(async () => {
  if (skip) return;
  database = await freshDatabase();
  tasks = database.tasks;
  gateway = await Gateway.start(database.env);
});
after(async () => {
  tabs.forEach((tab) => tab.close());
  await gateway?.stop();
  await database?.close();
});

/** The existing backend's REST API. It answers with documents as Mongoose does. */
async function backend(path) {
  const id = path.match(/^\/api\/tasks\/(.+)/)?.[1];
  if (id) return JSON.parse(JSON.stringify(await tasks.findOne({ _id: new ObjectId(id) })));
  const found = await tasks.find({}).sort({ createdAt: -1 }).toArray();
  return { tasks: JSON.parse(JSON.stringify(found)).map((task) => ({ ...task, creator: task.creatorName })) };
}

const entry = (eventType, payload) => ({ eventType, payload, createdAt: new Date() });

test('two tabs with tasks and one with the list show the database during the whole life of the tasks', async () => {
  const ids = [new ObjectId(), new ObjectId()];
  await tasks.insertMany(ids.map((_id, n) => ({
    _id, title: `Task ${n}`, status: 'received', createdBy: new ObjectId(), creatorName: 'Mo', orgId: 'acme', isPrivate: false,
    createdAt: new Date(Date.now() + n), updatedAt: new Date(), events: [entry('received', { n })],
  })));
  const [one, two] = ids.map(String);
  const script = await bundle(components);
  const token = await member('alice');
  const open = (path) => {
    const tab = new Tab(script, { url: gateway.url, token, path, backend });
    tabs.push(tab);
    return tab;
  };
  const list = open('/');
  const pages = [open(`/tasks/${one}`), open(`/tasks/${two}`)];

  const write = (n, change) => tasks.updateOne({ _id: ids[n] }, { ...change, $set: { ...change.$set, updatedAt: new Date() } });
  const joined = (tab, event) => tab.settled && tab.received.some((one) => one.event === event);
  /** Asserts that the screens show what the database has, in the fields that the components handle. */
  const screensAreTrue = () => settles(async () => {
    for (const [n, page] of pages.entries()) {
      const task = fullView(await tasks.findOne({ _id: ids[n] }));
      assert.deepEqual(page.detail(), {
        title: task.title,
        status: task.status,
        issue: task.issueUrl,
        pr: task.prUrl,
        timeline: task.events.map(({ eventType, payload }) => ({
          type: eventType, payload: Object.entries(payload).map(([key, value]) => `${key}: ${String(value)}`),
        })),
      });
    }
    const documents = await tasks.find({}).toArray();
    const cards = list.cards();
    assert.deepEqual([...cards.keys()].sort(), documents.map(({ _id }) => String(_id)).sort());
    for (const document of documents) {
      const { title, status, creator, githubIssueUrl, githubPrUrl } = summary(document);
      const card = cards.get(String(document._id));
      assert.deepEqual([card.title, card.status, card.creator, card.githubIssueUrl ?? null, card.githubPrUrl ?? null],
        [title, status, creator, githubIssueUrl, githubPrUrl]);
    }
  });

  await until(() => joined(list, 'dashboard:state') && pages.every((page) => joined(page, 'task:state')),
    () => `all tabs joined: ${JSON.stringify([list, ...pages].map(({ received, requests, errors }) => [requests, received, errors.map(String)]))}`);
  await screensAreTrue();

  // The first half of the life. The two tasks use different field names.
  await write(0, { $set: { status: 'analyzing' }, $push: { events: entry('analysis', { by: 'llm', apiKey: 'k' }) } });
  await write(1, { $set: { status: 'analyzing' } });
  await screensAreTrue();
  await write(0, { $set: { status: 'dispatched', githubIssueNumber: 12, githubIssueUrl: 'https://x/12' } });
  await write(1, { $set: { status: 'dispatched', issueNumber: 13, issueUrl: 'https://x/13' }, $push: { events: { $each: [entry('a', {}), entry('b', { n: 2 })] } } });
  await screensAreTrue();
  const third = new ObjectId();
  await tasks.insertOne({ _id: third, title: 'A third', status: 'received', createdBy: new ObjectId(), creatorName: 'Mo', orgId: 'acme', createdAt: new Date(), updatedAt: new Date(), events: [] });
  await screensAreTrue();

  // A restart in the middle, with changes meanwhile. The tabs reconnect by themselves.
  await gateway.kill();
  await write(0, { $set: { status: 'coding' }, $push: { events: entry('while away', { n: 3 }) } });
  await write(1, { $set: { status: 'pr_open', prNumber: 14, prUrl: 'https://x/14' } });
  await tasks.insertOne({ _id: new ObjectId(), title: 'A fourth', status: 'received', createdBy: new ObjectId(), creatorName: 'Mo', orgId: 'acme', createdAt: new Date(), updatedAt: new Date(), events: [] });
  await gateway.launch();
  await until(() => tabs.every((tab) => tab.socket.connected), 'all tabs are back', 60_000);
  await screensAreTrue();

  // The tabs lose their transport.
  for (const tab of tabs) tab.socket.io.engine.close();
  await write(0, { $set: { status: 'pr_open', githubPrNumber: 15, githubPrUrl: 'https://x/15' } });
  await until(() => tabs.every((tab) => tab.socket.connected), 'all tabs are back again', 60_000);
  await screensAreTrue();

  // The end of the life, while the tabs are connected.
  await write(0, { $set: { status: 'merged', mergeCommitSha: 'abc', mergedAt: new Date() }, $push: { events: entry('merged', { sha: 'abc' }) } });
  await write(1, { $push: { events: entry('review', { by: 'bob', approved: true }) } });
  await write(1, { $set: { status: 'merged' } });
  await screensAreTrue();

  for (const [n, page] of pages.entries()) {
    const states = page.received.filter(({ event }) => event === 'task:state').map(({ payload }) => payload._id);
    assert.deepEqual([...new Set(states)], [String(ids[n])], 'never the state of a task that was not asked for');
    assert.ok(!JSON.stringify(page.received).includes('"k"'), 'a secret in a payload');
  }
  assert.deepEqual(tabs.flatMap(({ errors }) => errors.map(String)), []);
}, { skip });
