// A clean Debian, a user with an empty home, and the README from top to bottom, literally: no stand-ins.
//   make clean-room          TESTS=no: without the README's last block, `make test`
// Needs root, debootstrap, unshare and some minutes. The room has namespaces of its own: its ports are free, and nothing of it survives.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFileSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';

import { nameOf, page } from '../e2e/support/markdown.js';
import { mongod, REPO } from '../e2e/support/paths.js';
import { start } from '../e2e/support/processes.js';
import { until } from '../e2e/support/until.js';
import { CLEAN, debian } from './debian.js';
import { Terminal } from './terminal.js';

const ROOM = join(CLEAN, 'room');
const ROOT = join(ROOM, 'root');
const TRANSCRIPT = join(CLEAN, 'transcript.txt');
const USER = 'stranger';
const COMPILED = 40 * 60_000;

const README = page('README.md');
const prose = (section) => {
  const heading = `## ${section}\n`;
  assert.ok(README.text.includes(heading), `the README has ${heading}`);
  return README.text.split(heading)[1].split('\n## ')[0].replaceAll(/^```[^]*?^```$/gm, '').replaceAll(/\s+/g, ' ');
};
/** A command that a section's prose names, by its beginning. */
const named = (section, beginning) => {
  const found = prose(section).split('`').find((text, index) => index % 2 === 1 && text.startsWith(beginning));
  assert.ok(found, `${section}: \`${beginning}…\``);
  return found;
};
const blocks = (section) => README.blocks.filter((block) => block.section === section && block.language === 'sh').map(({ text }) => text);

const sh = (command, ...args) => execFileSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
const step = (text) => console.log(`${new Date().toISOString().slice(11, 19)} ${text}`);

/** The Debian that the room begins as: what the README says to install. */
function base() {
  const words = (section, beginning) => named(section, beginning).slice(beginning.length).split(' ');
  return debian(['Quick start', 'Three nodes', 'Tests'].flatMap((section) => words(section, 'apt install ')), words('Three nodes', 'npm install --global '));
}

/** Outside: the namespaces, and a way out of them for whoever fetches packages. */
async function outside() {
  const lower = base();
  for (const name of ['upper', 'work', 'root']) {
    rmSync(join(ROOM, name), { recursive: true, force: true });
    mkdirSync(join(ROOM, name), { recursive: true });
  }
  rmSync(TRANSCRIPT, { force: true });
  sh('git', '-C', REPO, 'bundle', 'create', '--quiet', join(ROOM, 'taskcast.bundle'), 'HEAD');
  const room = start('unshare', ['--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc', process.execPath, process.argv[1], lower],
    { stdio: ['ignore', 'inherit', 'inherit'] });
  // setpriv and unshare replace each other: one process, in the new network.
  const here = readlinkSync('/proc/self/ns/net');
  await until(() => readlinkSync(`/proc/${room.pid}/ns/net`) !== here, 'a network of its own');
  const network = start(join(REPO, 'target/test-deps/slirp4netns'), ['--configure', '--mtu=65520', String(room.pid), 'tap0'], { stdio: 'ignore' });
  const { code } = await room.exited;
  network.kill();
  rmSync(ROOM, { recursive: true, force: true });
  return code ?? 1;
}

/** Inside: Debian with the toolchain and MongoDB's server put in, and the user. */
async function furnish(lower) {
  await until(() => networkInterfaces().tap0, 'the network');
  sh('ip', 'link', 'set', 'lo', 'up');
  sh('mount', '-t', 'overlay', '-o', `lowerdir=${lower},upperdir=${join(ROOM, 'upper')},workdir=${join(ROOM, 'work')}`, 'room', ROOT);
  sh('mount', '-t', 'proc', 'none', join(ROOT, 'proc'));
  sh('mount', '--rbind', '/dev', join(ROOT, 'dev'));
  sh('mount', '-t', 'tmpfs', '-o', 'mode=1777', 'none', join(ROOT, 'tmp'));
  sh(join(REPO, 'tests/clean/as-machine.sh'), ROOT);
  const toolchain = execFileSync('rustc', ['--print', 'sysroot'], { encoding: 'utf8' }).trim();
  mkdirSync(join(ROOT, 'opt/rust'));
  sh('mount', '--bind', '-o', 'ro', toolchain, join(ROOT, 'opt/rust'));
  for (const name of ['cargo', 'rustc', 'rustdoc', 'rustfmt', 'cargo-fmt', 'clippy-driver', 'cargo-clippy']) {
    if (existsSync(join(toolchain, 'bin', name))) sh('ln', '-s', `/opt/rust/bin/${name}`, join(ROOT, 'usr/local/bin', name));
  }
  cpSync(mongod(), join(ROOT, 'usr/local/bin/mongod'), { dereference: true });
  cpSync(join(ROOM, 'taskcast.bundle'), join(ROOT, 'srv/taskcast.bundle'));
  sh('chroot', ROOT, 'useradd', '--create-home', '--shell', '/bin/bash', USER);
  // Its root is the room and not a part of a larger one: in a chroot the tests could not make namespaces.
  mkdirSync(join(ROOT, 'outside'));
  const keeper = start('unshare', ['--mount', 'sh', '-euc', 'cd "$0"; pivot_root . outside; umount -l outside; exec sleep infinity', ROOT], { stdio: 'inherit' });
  const room = `/proc/${keeper.pid}/ns/mnt`;
  await until(() => existsSync(`/proc/${keeper.pid}/root/srv/taskcast.bundle`) && !existsSync(`/proc/${keeper.pid}/root/outside/srv`), 'the room is closed');
  return `nsenter --mount=${room} su - ${USER}`;
}

let login;
const terminal = async (name) => {
  const one = await Terminal.open(name, login, TRANSCRIPT);
  if (existsSync(join(ROOT, 'home', USER, 'taskcast'))) await one.run('cd taskcast');
  return one;
};

const analyzing = /task:analyzing \S+ analyzing$/m;
const listed = /dashboard:task_list_updated .*"status":"analyzing"/;

async function quickStart() {
  const [run, watch, move] = blocks('Quick start');
  const exports = watch.split('\n').filter((line) => line.startsWith('export ')).join('\n');
  assert.equal(exports.split('\n').length, 2);

  const first = await terminal('the first terminal');
  await first.run('git clone --quiet /srv/taskcast.bundle taskcast && cd taskcast');
  step('make run');
  first.paste(run);
  await first.sees(/^Watch: /m, COMPILED);

  step('taskcast tail, node watch.mjs, curl');
  const second = await terminal('another terminal');
  second.paste(watch);
  await second.sees(/dashboard:state \{"tasks":0\}/);

  const third = await terminal('the third one');
  await third.run(exports);
  const node = await terminal('the one for Node');
  const program = README.blocks.find((block) => nameOf(block) === 'watch.mjs').text;
  writeFileSync(join(ROOT, 'home', USER, 'taskcast/watch.mjs'), program);
  await node.run(named('Quick start', 'npm install socket.io-client'));
  await node.run(exports);
  node.paste(named('Quick start', 'node watch.mjs'));
  await node.sees(/0 tasks$/m);

  await third.run(move);
  await second.sees(listed);
  await node.sees(analyzing);
  await node.sees(/task:event_added /);
  for (const one of [second, node, first]) await one.interrupt();
}

/** The clients that each node has. */
async function connections() {
  const text = await Promise.all([1, 2, 3].map((n) => fetch(`http://127.0.0.1:300${n}/metrics`).then((answer) => answer.text(), () => '')));
  return text.map((metrics) => [...metrics.matchAll(/^taskcast_connections\{.*\} (\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0));
}

async function threeNodes() {
  const one = await terminal('the terminal of three nodes');
  step('MongoDB, Redis, three nodes, nginx');
  for (const block of blocks('Three nodes')) {
    const output = await one.run(block);
    assert.doesNotMatch(output, /^fail: /m);
    if (block.includes('taskcast check')) assert.match(output, /^ok: its clock and that of Redis agree$/m);
  }
  // In the background of the same terminal: what it prints comes behind prompts.
  await one.run(named('Three nodes', 'node watch.mjs'));
  await one.sees(/0 tasks$/m);
  const home = (await until(async () => (await connections()).includes(1) && connections(), 'somebody is connected')).indexOf(1);
  const token = /(eyJ\S+\.\S+)$/m.exec(await one.run('echo "$TOKEN"'))[1];
  const tail = await terminal('the one of tail');
  tail.paste(`target/debug/taskcast tail --url http://127.0.0.1:8080 --token ${token}`);
  await tail.sees(/dashboard:state \{"tasks":0\}/);

  step('curl');
  const move = blocks('Quick start')[2].replaceAll(':3000', ':8080');
  one.paste(move);
  await one.sees(analyzing);
  await one.sees(/task:event_added /);
  await tail.sees(listed);

  // First the node of watch.mjs is ended, then one that has clients now; the task moves while they look for another one.
  const jobs = new Map([...(await one.run('jobs')).matchAll(/^\[(\d+)\].*PORT=300\$n/gm)].map(([, job], index) => [index, job]));
  assert.equal(jobs.size, 3);
  const patch = move.slice(move.indexOf('curl -s -X PATCH'));
  for (const status of ['coding', 'failed']) {
    const before = await until(async () => {
      const counts = await connections();
      return counts.reduce((sum, count) => sum + count) === 2 && counts;
    }, 'both are connected');
    const node = status === 'coding' ? home : before.indexOf(Math.max(...before));
    step(`node ${node + 1} is ended; clients: ${before}`);
    one.paste(`kill %${jobs.get(node)}\n${patch.replace('analyzing', status).replace('agent_started', status)}`);
    if (status === 'coding') await one.sees(/1 tasks$/m);
    await one.sees(new RegExp(`task:(${status}|state) \\S+ ${status}$`, 'm'));
    await tail.sees(new RegExp(`^\\S+ dashboard:(task_list_updated .*"status":"${status}"|state \\{"tasks":1\\})`, 'm'));
  }
  await tail.interrupt();

  step('everything is ended');
  one.paste(named('Three nodes', 'kill $(jobs'));
  const closed = (port) => fetch(`http://127.0.0.1:${port}/`).then(() => false, ({ cause }) => cause.code === 'ECONNREFUSED');
  await until(async () => (await Promise.all([3001, 3002, 3003, 8080, 27017, 6379].map(closed))).every(Boolean), 'nobody listens', 60_000);
}

/** What the servers say is gone with the room. */
function keepLogs() {
  const folder = join(ROOT, 'home', USER, 'taskcast/cluster');
  for (const name of existsSync(folder) ? readdirSync(folder).filter((one) => one.endsWith('.log')) : []) {
    appendFileSync(TRANSCRIPT, `\n==> ${name} <==\n${readFileSync(join(folder, name), 'utf8').slice(-20_000)}`);
  }
}

async function inside(lower) {
  login = await furnish(lower);
  await quickStart();
  await threeNodes();
  // What is kept in the folder does not hinder who does it again.
  step('once more, with what the first time has left');
  const again = await terminal('the terminal of the second time');
  for (const block of blocks('Three nodes')) assert.doesNotMatch(await again.run(block), /^fail: /m);
  again.paste(named('Three nodes', 'kill $(jobs'));
  if (process.env.TESTS !== 'no') {
    step('make test');
    const [test] = blocks('Tests');
    await (await terminal('the terminal of the tests')).run(test, 2 * COMPILED);
  }
  step('followed to the end');
}

const lower = process.argv[2];
try {
  process.exit(lower === undefined ? await outside() : await inside(lower).finally(keepLogs).then(() => 0));
} catch (error) {
  console.error(error);
  process.exit(1);
}
