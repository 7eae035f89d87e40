// Pull requests from forks of strangers, and renamed repositories: GitHub's example payloads against a real gateway.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { ObjectId } from 'mongodb';

import { Gateway } from './support/gateway.js';
import { deliver, example, SECRET } from './support/github.js';
import { freshDatabase } from './support/mongo.js';
import { test } from './support/scenario.js';

const REPO = 'Codertocat/Hello-World';
const BRANCH = 'agent/42';
const STRANGER = { id: 424242, full_name: 'stranger/Hello-World', name: 'Hello-World', fork: true };
const SHA = { own: 'a'.repeat(40), fork: 'b'.repeat(40) };

let database;
let tasks;
let gateway;

before(async () => {
  database = await freshDatabase();
  tasks = database.tasks;
  gateway = await Gateway.start({ ...database.env, GITHUB_WEBHOOK_SECRET: SECRET });
});
after(async () => {
  await gateway?.stop();
  await database?.close();
});

async function insert(fields = {}) {
  const _id = new ObjectId();
  await tasks.insertOne({
    _id, title: 'A task', status: 'coding', createdBy: 'alice', orgId: 'acme', isPrivate: false, repo: REPO,
    createdAt: new Date(), updatedAt: new Date(), events: [], ...fields,
  });
  return _id;
}

const read = (_id) => tasks.findOne({ _id });
const entries = async (_id) => (await read(_id)).events.map(({ eventType }) => eventType);

/** A payload about a pull request: the repository's own, or a stranger's from a fork. */
function about(event, action, { number, fork = null, stranger = false, state = 'open', second = 0, body = '' }) {
  const payload = example(event, event === 'pull_request' ? 'opened' : action);
  payload.action = action;
  const pr = payload.pull_request;
  Object.assign(pr, {
    number, body, html_url: `${payload.repository.html_url}/pull/${number}`, state: state === 'open' ? 'open' : 'closed', merged: state === 'merged',
    merged_at: state === 'merged' ? '2026-01-02T03:04:05Z' : null, updated_at: new Date(Date.UTC(2026, 0, 2, 3, 4, second)).toISOString(),
  });
  Object.assign(pr.head, { ref: BRANCH, sha: stranger ? SHA.fork : SHA.own });
  if (stranger) Object.assign(pr, { author_association: 'NONE', head: { ...pr.head, repo: fork } });
  return payload;
}

function check(event, { sha, head = null, pull_requests = [] }) {
  const payload = example(event, 'completed');
  const own = example('pull_request', 'opened').repository;
  payload.repository = own;
  Object.assign(payload[event], { head_sha: sha, head_branch: BRANCH, pull_requests });
  if (event === 'check_run') payload.check_run.check_suite = { head_branch: BRANCH, head_sha: sha };
  if (event === 'workflow_run') Object.assign(payload.workflow_run, { repository: own, head_repository: head });
  return payload;
}

async function taken(event, payload, options) {
  const { status, body } = await deliver(gateway, event, payload, options);
  assert.deepEqual([status, body], [200, { ok: true }], `${event} ${payload.action}`);
}

async function ignored(event, payload) {
  const { status } = await deliver(gateway, event, payload);
  assert.equal(status, 202, `${event} ${payload.action}`);
}

test('a stranger with a fork cannot change a task', async () => {
  const id = await insert({ githubBranch: BRANCH, githubIssueNumber: 4242 });
  const fields = Object.keys(await read(id)).sort();
  const stranger = { number: 9, stranger: true, fork: STRANGER, body: `Fixes #4242, task: ${id}` };

  const mischief = async (second) => {
    for (const action of ['opened', 'edited', 'synchronize', 'labeled', 'ready_for_review']) await ignored('pull_request', about('pull_request', action, { ...stranger, second }));
    await ignored('pull_request', about('pull_request', 'closed', { ...stranger, state: 'closed', second: second + 1 }));
    await ignored('pull_request', about('pull_request', 'reopened', { ...stranger, fork: null, second: second + 2 }));
    await ignored('pull_request', about('pull_request', 'closed', { ...stranger, fork: null, state: 'closed', second: second + 3 }));
    await ignored('pull_request_review', about('pull_request_review', 'submitted', stranger));
    for (const [event, head] of [['workflow_run', STRANGER], ['workflow_run', null], ['check_run'], ['check_suite']]) await ignored(event, check(event, { sha: SHA.fork, head }));
    const issue = example('issues', 'opened');
    Object.assign(issue.issue, { number: 77, html_url: `https://github.com/${REPO}/issues/77`, body: `task: ${id}`, author_association: 'NONE' });
    await ignored('issues', issue);
    const comment = example('issue_comment', 'created');
    Object.assign(comment.issue, { number: 77, html_url: `https://github.com/${REPO}/issues/77` });
    Object.assign(comment.comment, { body: `Fixes #4242, task: ${id}`, author_association: 'NONE' });
    await ignored('issue_comment', comment);
  };

  await mischief(0);
  assert.deepEqual([(await read(id)).status, await entries(id)], ['coding', []]);
  await taken('pull_request', about('pull_request', 'opened', { number: 7, second: 10 }));
  await mischief(20);
  await taken('workflow_run', check('workflow_run', { sha: SHA.own, head: example('pull_request', 'opened').repository }));
  await taken('pull_request', about('pull_request', 'closed', { number: 7, state: 'merged', second: 11 }));
  await mischief(30);
  const task = await read(id);
  assert.deepEqual([task.status, task.prState, task.githubPrNumber], ['merged', 'merged', 7]);
  assert.deepEqual(await entries(id), ['pr_opened', 'ci_completed', 'pr_merged']);
  const added = Object.keys(task).filter((name) => !fields.includes(name));
  assert.deepEqual(added.sort(), ['githubPrNumber', 'githubPrSeen', 'githubPrUrl', 'mergedAt', 'prState', 'prTitle']);
  await tasks.deleteMany({});
});

test('checks of a known pull request from a fork are recorded; checks of another fork are ignored', async () => {
  const id = await insert({ githubPrNumber: 9 });
  await taken('pull_request', about('pull_request', 'synchronize', { number: 9, stranger: true, fork: STRANGER }));
  for (const event of ['check_run', 'check_suite']) await taken(event, check(event, { sha: SHA.fork }));
  await taken('workflow_run', check('workflow_run', { sha: SHA.fork, head: STRANGER }));
  await ignored('workflow_run', check('workflow_run', { sha: SHA.fork, head: { id: 5, full_name: 'another/fork' } }));
  await ignored('workflow_run', check('workflow_run', { sha: SHA.own, head: STRANGER }));
  assert.deepEqual(await entries(id), ['pr_synchronize', 'ci_completed', 'ci_completed', 'ci_completed']);
  await tasks.deleteMany({});
});

/** A payload with another name, and another id, for the repository. */
const called = (payload, name, id) => {
  const text = JSON.stringify(payload).replaceAll(REPO, name);
  return JSON.parse(id === undefined ? text : text.replaceAll(String(payload.repository.id), String(id)));
};

for (const [action, name, changes] of [
  ['renamed', 'Codertocat/Site', { repository: { name: { from: 'Hello-World' } } }],
  ['transferred', 'Other/Hello-World', { owner: { from: { user: { login: 'Codertocat' } } } }],
]) {
  test(`tasks follow a repository that is ${action}, not a new repository with the old name`, async () => {
    // Each test uses its own repository, because the gateway remembers the names that it has learnt.
    const own = action === 'renamed' ? 1001 : 1002;
    const first = `first-${action}/Hello-World`;
    const next = name.replace('Codertocat', `first-${action}`);
    const pullRequest7 = (second, repo, id, state = 'open') => called(about('pull_request', state === 'merged' ? 'closed' : 'edited', { number: 7, second, state }), repo, id);
    const named = await insert({ repo: first, prNumber: 7 });
    await taken('pull_request', pullRequest7(1, first, own));

    const event = example('repository', action);
    const from = JSON.parse(JSON.stringify(changes).replace('Codertocat', `first-${action}`));
    Object.assign(event, { changes: from, repository: { ...example('pull_request', 'opened').repository, id: own, full_name: next, html_url: `https://github.com/${next}` } });
    const id = `${action}-1`;
    const told = await deliver(gateway, 'repository', event, { id });
    assert.equal(told.status, 202, JSON.stringify(told.body));
    await taken('pull_request', pullRequest7(2, next, own));
    assert.equal((await read(named)).prUrl, undefined);
    assert.equal((await read(named)).githubPrUrl, `https://github.com/${next}/pull/7`);

    const other = own + 1000;
    await ignored('pull_request', pullRequest7(3, first, other));
    const theirs = await insert({ repo: first, prNumber: 7 });
    await taken('pull_request', pullRequest7(4, first, other));
    await deliver(gateway, 'repository', event, { id });
    await taken('pull_request', pullRequest7(5, next, own, 'merged'));
    assert.deepEqual([(await read(named)).status, (await read(theirs)).status], ['merged', 'pr_open']);
    assert.deepEqual((await read(named)).repo, first);
    await tasks.deleteMany({});
  });
}
