// /metrics agrees with what clients do and receive.
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { Client, refused } from './support/client.js';
import { withGateway } from './support/gateway.js';
import { SECRET, deliver, example } from './support/github.js';
import { api, createTask, patchTask } from './support/http.js';
import { scrape } from './support/metrics.js';
import { freshDatabase, startMongod } from './support/mongo.js';
import { REPO } from './support/paths.js';
import { freePort } from './support/ports.js';
import { member, pipeline } from './support/tokens.js';
import { test } from './support/scenario.js';
import { once, until } from './support/until.js';

/** Counts the Socket.IO packets that a client receives, and their bytes. */
function countPackets(client) {
  const seen = { packets: 0, bytes: 0 };
  client.socket.io.engine.on('packet', ({ type, data }) => {
    if (type !== 'message') return;
    seen.packets += 1;
    seen.bytes += Buffer.byteLength(data);
  });
  return seen;
}

/** Clients over both transports, with the packet counts of each. */
async function clients(gateway, token) {
  return Promise.all([['websocket'], ['websocket'], ['polling']].map(async (transports) => {
    const client = new Client(gateway, token, { transports });
    const seen = countPackets(client);
    await client.connected();
    return { client, seen };
  }));
}

test('metrics of connections, handoffs, events and deliveries agree with what the clients saw', () => withGateway({}, async (gateway) => {
  const [alice, writer] = await Promise.all([member('alice'), pipeline()]);
  const { taskId } = await createTask(gateway.url, alice);
  await until(async () => (await scrape(gateway.url)).get('taskcast_changes_total') === 1, 'the task is relayed');
  const before = await scrape(gateway.url);
  const all = await clients(gateway, alice);
  const bob = await Client.connect(gateway, await member('bob'));
  for (const { client } of all) {
    await client.join(taskId);
    await client.joinDashboard();
  }
  for (const status of ['analyzing', 'coding']) await patchTask(gateway.url, writer, taskId, { status });
  for (const { client } of all) {
    await client.waitForEvent('task:coding');
    await client.waitForEvent('dashboard:task_list_updated', ({ status }) => status === 'coding');
  }
  assert.equal((await bob.ask('task:join', { taskId: 'absent' })).error.code, 'not_found');
  assert.equal((await bob.ask('task:join', {})).error.code, 'invalid_payload');
  assert.equal((await bob.ask('no such event')).error.code, 'invalid_payload');
  assert.equal(await refused(gateway, 'x.y.z'), 'unauthorized');
  const bobs = 1 + 3;

  const sum = (key) => all.reduce((total, { seen }) => total + seen[key], 0);
  const now = await until(async () => {
    const page = await scrape(gateway.url);
    // The gateway sends counts up to 200 ms later. Then both numbers agree.
    return page.since(before, 'taskcast_deliveries_total') === sum('packets') + bobs && page;
  }, 'deliveries and received packets agree');
  const grown = (name, labels) => now.since(before, name, labels);
  assert.ok(grown('taskcast_delivered_bytes_total') > sum('bytes'));
  assert.equal(now.get('taskcast_connections', { transport: 'websocket' }), 3);
  assert.equal(now.get('taskcast_connections', { transport: 'polling' }), 1);
  assert.equal(now.get('taskcast_users'), 2);
  assert.equal(now.get('taskcast_rooms', { room: 'task' }), 1);
  assert.equal(now.get('taskcast_room_members', { room: 'task' }), 3);
  assert.equal(now.get('taskcast_room_members', { room: 'dashboard' }), 3);
  assert.equal(grown('taskcast_handshakes_total', { outcome: 'accepted' }), 4);
  assert.equal(grown('taskcast_handshakes_total', { outcome: 'unauthorized' }), 1);
  assert.equal(grown('taskcast_handoffs_total', { room: 'task', kind: 'state' }), 3);
  assert.equal(grown('taskcast_handoffs_total', { room: 'task', kind: 'gone' }), 1);
  assert.equal(grown('taskcast_handoffs_total', { room: 'dashboard', kind: 'state' }), 3);
  assert.equal(grown('taskcast_refusals_total', { code: 'not_found' }), 1);
  assert.equal(grown('taskcast_refusals_total', { code: 'invalid_payload' }), 2);
  assert.equal(grown('taskcast_client_events_total', { event: 'task:join' }), 5);
  assert.equal(grown('taskcast_client_events_total', { event: 'unknown' }), 1);
  assert.equal(grown('taskcast_changes_total'), 2);
  assert.equal(grown('taskcast_commit_to_emit_seconds_count'), 2);
  assert.equal(grown('taskcast_encode_seconds_count'), 2);
  assert.equal(grown('taskcast_fanout_seconds_count'), 2);
  assert.equal(grown('taskcast_events_total', { event: 'task:coding' }), 1);
  assert.equal(grown('taskcast_events_total', { event: 'dashboard:task_list_updated' }), 2);
  assert.equal(grown('taskcast_http_requests_total', { route: '/api/tasks/{id}', method: 'PATCH', status: '2xx' }), 2);
  assert.equal(grown('taskcast_store_seconds_count', { operation: 'patch' }), 2);
  assert.ok(grown('taskcast_snapshot_reads_total', { room: 'task', read: 'own' }) >= 1);
  assert.equal(now.get('taskcast_ring_steps'), 3);
  assert.equal(now.get('taskcast_status', { status: 'ok' }), 1);
  assert.equal(now.get('taskcast_panics_total'), 0);
  assert.equal(grown('taskcast_client_errors_total'), 4);
  assert.equal((await gateway.health()).websocket.totalErrors, now.get('taskcast_client_errors_total'));
  await until(async () => (await gateway.health()).websocket.messagesPerSecond > 0, 'health shows a message rate');

  for (const { client } of all) client.close();
  bob.close();
  const end = await until(async () => {
    const page = await scrape(gateway.url);
    return page.get('taskcast_users') === 0 && page;
  }, 'all clients are disconnected');
  assert.equal(end.get('taskcast_rooms', { room: 'task' }), 0);
  for (const transport of ['websocket', 'polling']) assert.equal(end.get('taskcast_connections', { transport }), 0);
}));

test('refused connections are counted by reason', () => withGateway({}, async (gateway) => {
  const before = await scrape(gateway.url);
  const open = (query, headers) => fetch(`${gateway.url}/socket.io/?EIO=4&transport=polling${query}`, { headers });
  assert.equal((await open('', { origin: 'https://elsewhere.example.org' })).status, 403);
  assert.equal((await open('&token=x', {})).status, 400);
  const now = await scrape(gateway.url);
  assert.equal(now.since(before, 'taskcast_connections_refused_total', { reason: 'forbidden_origin' }), 1);
  assert.equal(now.since(before, 'taskcast_connections_refused_total', { reason: 'token_in_query' }), 1);
  assert.equal(now.since(before, 'taskcast_http_requests_total', { route: '/socket.io', method: 'GET', status: '4xx' }), 2);
}));

test('metrics with their own port and token are served until the end of the drain', async () => {
  const adminPort = await freePort();
  const admin = `http://127.0.0.1:${adminPort}`;
  const token = 'a-metrics-token';
  await withGateway({ ADMIN_PORT: String(adminPort), METRICS_TOKEN: token, SHUTDOWN_GRACE: '20s' }, async (gateway) => {
    const hidden = await api(gateway.url, 'GET', '/metrics', { token });
    assert.deepEqual([hidden.status, hidden.body.error.code], [404, 'not_found']);
    for (const wrong of [undefined, 'another']) {
      const answer = await api(admin, 'GET', '/metrics', { token: wrong });
      assert.deepEqual([answer.status, answer.body.error.code], [401, 'unauthorized']);
    }
    assert.equal((await api(admin, 'GET', '/api/tasks', { token: await member('alice') })).status, 404);
    assert.equal((await fetch(`${admin}/socket.io/?EIO=4&transport=polling`)).status, 404);
    assert.equal((await scrape(admin, token)).get('taskcast_status', { status: 'ok' }), 1);

    // An unfinished request keeps the node draining.
    const slow = connect(gateway.port, '127.0.0.1');
    const head = `POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${await member('alice')}\r\nContent-Type: application/json\r\nContent-Length: 20\r\nExpect: 100-continue\r\n\r\n`;
    slow.write(head);
    assert.match(String(await once(slow, 'data')), /^HTTP\/1.1 100 /, 'the gateway waits for the body');
    gateway.child.kill('SIGTERM');
    await until(async () => (await scrape(admin, token)).get('taskcast_status', { status: 'draining' }) === 1, 'it drains');
    assert.equal((await fetch(`${gateway.url}/socket.io/?EIO=4&transport=polling`)).status, 503);
    assert.equal((await scrape(admin, token)).get('taskcast_connections_refused_total', { reason: 'draining' }), 1);
    slow.end('{"title": "the last"}'.slice(0, 20));
    await gateway.stop();
  });
});

test('no input of a client creates a new time series', () => withGateway({ JOIN_RATE_PER_SECOND: '100000' }, async (gateway) => {
  const alice = await member('alice');
  const client = await Client.connect(gateway, alice);
  const once = async (n) => {
    const headers = { 'x-github-event': `event-${n}`, 'x-request-id': `request-${n}` };
    await Promise.all([
      client.ask('task:join', { taskId: `task-${n}` }),
      client.ask(`event-${n}`, {}),
      member(`user-${n}`, `org-${n}`).then((token) => api(gateway.url, 'GET', `/api/tasks/task-${n}`, { token, headers })),
      api(gateway.url, 'GET', `/path-${n}`),
      api(gateway.url, 'GET', `/api/tasks?status=status-${n}`, { token: alice }),
      api(gateway.url, 'POST', '/api/webhooks/github', { body: {}, headers }),
      fetch(`${gateway.url}/socket.io/?EIO=4&transport=transport-${n}`, { headers: { origin: `https://origin-${n}.example.org` } }),
      fetch(`${gateway.url}/socket.io/path-${n}?EIO=4&transport=polling&sid=sid-${n}`),
    ]);
  };
  await once(0);
  await createTask(gateway.url, alice);
  await scrape(gateway.url);
  const before = await scrape(gateway.url);
  for (let n = 1; n <= 1000; n += 20) await Promise.all(Array.from({ length: 20 }, (_, k) => once(n + k)));
  for (let n = 1; n <= 100; n += 1) {
    const user = await Client.connect(gateway, await member(`user-${n}`, `org-${n}`));
    await createTask(gateway.url, await member(`user-${n}`, `org-${n}`), { title: `title-${n}` });
    await user.joinDashboard();
    user.close();
  }
  const after = await scrape(gateway.url);
  const added = [...after.samples.keys()].filter((series) => !before.samples.has(series));
  assert.deepEqual(added, []);
  assert.equal(after.since(before, 'taskcast_client_events_total', { event: 'unknown' }), 1000);
}));

test('metrics show the state of MongoDB and of the change stream', async () => {
  const database = await freshDatabase();
  try {
    await withGateway(database.env, async (gateway) => {
      await database.tasks.insertOne({ title: 'x', status: 'received', createdBy: 'alice', orgId: 'acme' });
      const page = await until(async () => {
        const page = await scrape(gateway.url);
        return page.get('taskcast_changes_total') > 0 && page.get('taskcast_oplog_window_seconds') >= 0 && page;
      }, 'the change is relayed');
      assert.equal(page.get('taskcast_commit_to_emit_seconds_count'), 1);
      assert.equal(page.get('taskcast_store_up'), 1);
      assert.equal(page.get('taskcast_relay_open'), 1);
      assert.equal(page.get('taskcast_stream_restarts_total'), 0);
      assert.ok(page.get('taskcast_resume_token_age_seconds') < 60);
      assert.ok(page.get('taskcast_store_seconds_count', { operation: 'ping' }) >= 1);
    });
  } finally {
    await database.close();
  }
});

test('health and metrics show the lag while MongoDB does not answer the change stream', async () => {
  const mongod = await startMongod();
  try {
    await withGateway({ MONGODB_URI: mongod.uri, MONGODB_DB: 'lag' }, async (gateway) => {
      const lags = async () => {
        const page = await scrape(gateway.url);
        return [(await gateway.health()).relay.lagMs / 1000, ...['relay', 'stream'].map((what) => page.get(`taskcast_${what}_lag_seconds`))];
      };
      const tell = (is, what) => until(async () => (await lags()).every(is), what, 60_000);
      await tell((seconds) => seconds === 0, 'there is no lag');
      mongod.signal('SIGSTOP');
      await tell((seconds) => seconds > 2, 'it lags');
      mongod.signal('SIGCONT');
      await tell((seconds) => seconds === 0, 'it has caught up');
    });
  } finally {
    await mongod.stop();
  }
});

test('the documentation lists exactly the metrics that a running gateway shows', () => withGateway({}, async (gateway) => {
  const shown = [...(await scrape(gateway.url)).families.keys()].sort();
  const text = readFileSync(join(REPO, 'docs/operations.md'), 'utf8');
  const rows = [...text.matchAll(/^\| (`(?:taskcast|process)_[^|]*) \|/gm)].map(([, cell]) => cell);
  const documented = rows.flatMap((cell) => [...cell.matchAll(/`([a-z_]+)`/g)].map(([, name]) => name)).sort();
  assert.deepEqual(documented, shown);
}));

test('the Grafana dashboard shows the life of a task, including GitHub webhooks', () => withGateway({ GITHUB_WEBHOOK_SECRET: SECRET }, async (gateway) => {
  const [alice, writer] = await Promise.all([member('alice'), pipeline()]);
  const before = await scrape(gateway.url);
  const client = await Client.connect(gateway, alice);
  await client.joinDashboard();
  const opened = example('pull_request', 'opened');
  const { number } = opened.pull_request;
  const { taskId } = await createTask(gateway.url, alice, { repo: opened.repository.full_name });
  await client.join(taskId);
  const life = [
    ['task:analyzing', { status: 'analyzing' }],
    ['task:clarification_needed', { status: 'needs_clarification', questions: ['which?'] }],
    ['task:dispatched', { status: 'dispatched', issueNumber: 4, githubBranch: 'task-4' }],
    ['task:coding', { status: 'coding', event: { eventType: 'step', payload: {} } }],
  ];
  for (const [event, fields] of life) {
    await patchTask(gateway.url, writer, taskId, fields);
    await client.waitForEvent(event);
  }
  await patchTask(gateway.url, writer, taskId, { prNumber: number });
  assert.equal((await deliver(gateway, 'pull_request', opened)).status, 200);
  await client.waitForEvent('task:pr_opened');
  const merged = { merged: true, merged_at: '2040-01-01T00:00:00Z', merge_commit_sha: 'abc', state: 'closed', updated_at: '2040-01-01T00:00:00Z' };
  const closed = { ...opened, action: 'closed', pull_request: { ...opened.pull_request, ...merged } };
  assert.equal((await deliver(gateway, 'pull_request', closed, { id: 'one-delivery' })).status, 200);
  assert.equal((await deliver(gateway, 'pull_request', closed, { id: 'one-delivery' })).status, 200);
  await client.waitForEvent('task:pr_merged');
  assert.equal((await deliver(gateway, 'star', {})).status, 202);
  const page = await until(async () => {
    const page = await scrape(gateway.url);
    return page.since(before, 'taskcast_commit_to_emit_seconds_count') === life.length + 4 && page;
  }, 'everything has been relayed');
  for (const event of [...life.map(([event]) => event), 'task:pr_opened', 'task:pr_merged']) {
    assert.equal(page.since(before, 'taskcast_events_total', { event }), 1, event);
  }
  const hooks = (event, outcome) => page.since(before, 'taskcast_webhooks_total', { event, outcome });
  assert.deepEqual([hooks('pull_request', 'written'), hooks('pull_request', 'duplicate'), hooks('other', 'ignored')], [2, 1, 1]);

  // The page has a sample for each metric of each query, with the labels that the query groups by.
  const { panels } = JSON.parse(readFileSync(join(REPO, 'deploy/grafana/taskcast.json'), 'utf8'));
  const queries = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
  assert.ok(queries.length > 40);
  for (const query of queries) {
    const names = query.match(/(?:taskcast|process)_[a-z_]+/g);
    const labels = [...query.matchAll(/by \(([a-z_, ]+)\)/g)].flatMap(([, list]) => list.split(', ')).filter((label) => label !== 'instance');
    for (const name of names) {
      const samples = [...page.samples.keys()].filter((series) => series === name || series.startsWith(`${name}{`));
      assert.ok(samples.length > 0, `${name} of ${query}`);
      for (const label of labels) assert.ok(samples.every((series) => series.includes(`${label}="`)), `${label} of ${query}`);
    }
  }
  client.close();
}));
