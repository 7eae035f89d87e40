// Activity events on the embedded store: reports over HTTP and by the command line lose nothing and double nothing when the gateway is
// killed, and pages show them to those who may see them.
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';

import { Gateway, withGateway } from './support/gateway.js';
import { api } from './support/http.js';
import { binary } from './support/paths.js';
import { run, start } from './support/processes.js';
import { test } from './support/scenario.js';
import { member } from './support/tokens.js';
import { until } from './support/until.js';

let gateway;
let alice;

before(async () => {
  gateway = await Gateway.start();
  alice = await member('alice', 'acme', { scope: 'events:write' });
});
after(() => gateway?.stop());

test('a user sees the events of its organisation, oldest page last, and nobody else does', async () => {
  const events = Array.from({ length: 25 }, (_, n) => progress(`page ${n}`));
  const answer = await report(alice, events);
  assert.equal(answer.status, 202, answer.text);
  assert.deepEqual([answer.body.accepted, answer.body.duplicates], [25, 0]);
  const seen = await everyEvent(await member('bob'), 'events=command:*&limit=10');
  assert.deepEqual(seen.map(({ payload }) => payload.message), events.map(({ payload }) => payload.message).reverse());
  assert.equal(seen[0].eventId, answer.body.eventId);
  assert.deepEqual(await everyEvent(await member('bob', 'globex'), 'events=command:*,log.*'), []);
});

test('emit reports one event, and says what is wrong with another', async () => {
  const emitted = await emit(['agent.started', '{"agent_id": "a1", "name": "Ada"}', '--project', 'web']);
  assert.deepEqual([emitted.code, emitted.stdout], [0, '1 stored, 0 stored before, 0 refused\n'], emitted.stderr);
  const [event] = await everyEvent(alice, 'events=agent.started&projects=web');
  assert.deepEqual(event.payload, { agent_id: 'a1', name: 'Ada' });

  const fromInput = await emit(['agent.failed', '-', '--id', 'x'], '{"agent_id": "a1"}');
  assert.equal(fromInput.code, 0, fromInput.stderr);
  const again = await emit(['agent.failed', '--id', 'x'], '{"agent_id": "a1"}');
  assert.equal(again.stdout, '0 stored, 1 stored before, 0 refused\n');
  for (const [args, message] of [
    [['agent.started', '{}'], /agent_id/],
    [['no.such', '{}'], /is not a known event type/],
    [['agent.started', '{'], /the payload is not JSON/],
  ]) {
    const refused = await emit(args);
    assert.equal(refused.code, 1, args.join(' '));
    assert.match(refused.stderr, message);
  }
});

test('emit --ndjson continues after kill -9 of the gateway, without a lost or a doubled event', async () => {
  const child = start(binary(), ['emit', '--ndjson'], { env: environment(), stdio: ['pipe', 'pipe', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
  const total = 6000;
  const writing = (async () => {
    for (let n = 0; n < total; n += 1) {
      if (!child.stdin.write(`${JSON.stringify(progress(`stream ${n}`))}\n`)) await new Promise((resolve) => child.stdin.once('drain', resolve));
      // Some batches are small, so that the stream lasts for the kills.
      if (n % 50 === 0) await new Promise(setImmediate);
    }
    child.stdin.end();
  })();
  for (let kills = 0; kills < 3; kills += 1) {
    const before = (await streamed()).length;
    await until(async () => before >= total || (await streamed()).length > before, () => `the stream continues\n${stderr}`);
    await gateway.restart();
  }
  await writing;
  assert.deepEqual(await child.exited, { code: 0, signal: null }, stderr);
  const messages = await streamed();
  assert.equal(messages.length, total, 'lost or doubled');
  assert.deepEqual(messages, Array.from({ length: total }, (_, n) => `stream ${n}`).reverse(), 'in their order');
});

test('every answered report is stored after kill -9 in the middle of reports', async () => {
  const answered = new Set();
  const writers = Array.from({ length: 4 }, async (_, writer) => {
    for (let n = 0; ; n += 1) {
      const batch = [0, 1, 2].map((part) => progress(`kill ${writer} ${n} ${part}`));
      const answer = await report(alice, batch);
      assert.equal(answer.status, 202, answer.text);
      batch.forEach(({ payload }) => answered.add(payload.message));
    }
  });
  const ended = Promise.allSettled(writers);
  await until(() => answered.size >= 60, 'reports are being answered');
  await gateway.kill();
  await ended;
  await gateway.launch();
  const kept = (await everyEvent(alice, 'events=command:*&limit=500')).map(({ payload }) => payload.message).filter((text) => text.startsWith('kill '));
  assert.equal(new Set(kept).size, kept.length, 'stored twice');
  assert.deepEqual([...answered].filter((text) => !kept.includes(text)), [], 'answered, then lost');
  for (const [batch, events] of batches(kept)) assert.equal(events.length, 3, `half of ${batch}`);
});

test('a hook of a coding agent is kept without what it read, and the command never disturbs the agent', async () => {
  const hook = { hook_event_name: 'PostToolUse', session_id: 's1', tool_name: 'Bash', cwd: '/home/private', tool_input: { command: 'private' }, tool_response: { success: true } };
  const forwarded = await run(binary(), ['hook'], { env: environment(), input: JSON.stringify(hook), stdio: ['pipe', 'pipe', 'pipe'] });
  assert.deepEqual([forwarded.code, forwarded.stdout], [0, ''], forwarded.stderr);
  const [event] = await everyEvent(alice, 'events=hook.*');
  assert.deepEqual([event.type, event.payload], ['hook.post_tool_use', { session_id: 's1', tool_name: 'Bash', ok: true }]);
  for (const [env, input] of [[environment(), 'no JSON'], [environment({ PORT: '1' }), JSON.stringify(hook)], [environment({ PORT: 'x' }), JSON.stringify(hook)]]) {
    const { code, stdout, stderr } = await run(binary(), ['hook'], { env, input, stdio: ['pipe', 'pipe', 'pipe'] });
    assert.deepEqual([code, stdout], [0, '']);
    assert.match(stderr, /^taskcast hook: /);
  }
});

test('a mistake on the command line or in the .env of a project does not become an exit code', async () => {
  writeFileSync(join(gateway.cwd, '.env'), 'this is no setting\n');
  for (const args of [[], ['--tokn', 't'], ['--port', 'x'], ['--url', 'nonsense']]) {
    const { code, stdout } = await run(binary(), ['hook', ...args], { env: environment(), cwd: gateway.cwd, input: '{"hook_event_name": "Stop", "session_id": "s2"}', stdio: ['pipe', 'pipe', 'pipe'] });
    assert.deepEqual([code, stdout], [0, ''], args.join(' '));
  }
  rmSync(join(gateway.cwd, '.env'));
  assert.equal((await everyEvent(alice, 'events=hook.stop')).length, 1, 'the one without a mistake is reported');
});

test('an input that stays open does not keep the hook', async () => {
  const begun = performance.now();
  const child = start(binary(), ['hook'], { env: environment(), stdio: ['pipe', 'ignore', 'ignore'] });
  assert.deepEqual(await child.exited, { code: 0, signal: null });
  assert.ok(performance.now() - begun < 10_000, 'it ended by itself');
  child.stdin.destroy();
});

test('an operator adds types, and can switch activity off', async () => {
  await withGateway({}, async (other) => {
    const folder = join(other.cwd, 'schemas');
    mkdirSync(folder);
    const schema = { 'x-taskcast': { type: 'build.done' }, type: 'object', required: ['commit'], properties: { commit: { type: 'string' } } };
    writeFileSync(join(folder, 'build.done.json'), JSON.stringify(schema));
    other.env.ACTIVITY_SCHEMAS = folder;
    await other.restart();
    const post = (body) => api(other.url, 'POST', '/api/activity', { token: alice, body });
    assert.equal((await post({ type: 'build.done', payload: { commit: 'c0ffee' } })).status, 202);
    const refused = await post({ type: 'build.done', payload: {} });
    assert.deepEqual([refused.status, refused.body.error.details[0].type], [422, 'build.done']);
    writeFileSync(join(folder, 'broken.json'), '{"type": 5}');
    await other.kill();
    other.spawn();
    assert.equal((await other.child.exited).code, 2);
    assert.match(other.output, /ACTIVITY_SCHEMAS.*broken\.json/);
  });
  await withGateway({ FEATURE_ACTIVITY: 'false' }, async (other) => {
    const answer = await api(other.url, 'GET', '/api/activity', { token: alice });
    assert.deepEqual([answer.status, answer.body.error.code], [403, 'feature_disabled']);
  });
});

const progress = (message) => ({ type: 'command:progress', payload: { story_key: '1-2', command: 'dev-story', task_id: 'unknown', message } });

const report = (token, body) => api(gateway.url, 'POST', '/api/activity', { token, body });

const environment = (more = {}) => ({ ...gateway.env, TASKCAST_TOKEN: alice, ...more });

const emit = (args, input) => run(binary(), ['emit', ...args], { env: environment(), input, stdio: ['pipe', 'pipe', 'pipe'] });

/** The messages of the stream that are stored, newest first. */
const streamed = async () =>
  (await everyEvent(alice, 'events=command:*&limit=500')).map(({ payload }) => payload.message).filter((text) => text.startsWith('stream '));

/** All events of a query, page by page. */
async function everyEvent(token, query) {
  const events = [];
  for (let before = ''; before !== null; ) {
    const { status, body, text } = await api(gateway.url, 'GET', `/api/activity?${query}${before && `&before=${before}`}`, { token });
    assert.equal(status, 200, text);
    events.push(...body.events);
    before = body.nextCursor;
  }
  return events;
}

/** The events of each batch, by the batch's name. */
function batches(texts) {
  const found = new Map();
  for (const text of texts) {
    const batch = text.replace(/ \d$/, '');
    found.set(batch, [...(found.get(batch) ?? []), text]);
  }
  return found;
}
