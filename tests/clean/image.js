// The Dockerfile, built, and its image, run: without a docker engine and without a registry of images. The image that it begins FROM is stood in for
// by a Debian of the same name with this machine's Rust; everything else is what the Dockerfile says.
//   make image-check
// Needs root, debootstrap, buildah, podman and runc.
import assert from 'node:assert/strict';
import { execFileSync, execSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { REPO } from '../e2e/support/paths.js';
import { until } from '../e2e/support/until.js';
import { CLEAN, debian } from './debian.js';

const MOST_BYTES = 40e6;
const NOBODY = '65532';
const NAME = 'localhost/taskcast-image-check';

const [, from, suite] = /^FROM (rust:[\d.]+-(\w+)) AS /m.exec(readFileSync(join(REPO, 'Dockerfile'), 'utf8'));
const commit = execFileSync('git', ['-C', REPO, 'rev-parse', 'HEAD'], { encoding: 'utf8' }).trim();

// A store of its own, and nothing of it stays.
const store = join(CLEAN, 'images');
mkdirSync(CLEAN, { recursive: true });
writeFileSync(`${store}.conf`, `[storage]\ndriver = "overlay"\nrunroot = "${store}/run"\ngraphroot = "${store}/graph"\n`);
process.env.CONTAINERS_STORAGE_CONF = `${store}.conf`;
const shown = { stdio: ['ignore', 'inherit', 'inherit'] };
// crun knows no hybrid hierarchy of cgroups, runc does.
const podman = (...args) => execFileSync('podman', ['--runtime', 'runc', '--cgroup-manager', 'cgroupfs', '--tmpdir', `${store}/tmp`, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();

function build() {
  const root = debian(['gcc', 'g++', 'libc6-dev', 'make', 'pkg-config', 'git', 'binutils'], [], suite);
  const toolchain = execFileSync('rustc', ['--print', 'sysroot'], { encoding: 'utf8' }).trim();
  const environment = ['PATH=/usr/local/cargo/bin:/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'CARGO_HOME=/usr/local/cargo'];
  execSync(`tar -c -f '${store}.tar' -C '${root}' . && tar -r -f '${store}.tar' --transform 's|^\\.|./opt/rust|S' --exclude ./share --exclude ./etc -C '${toolchain}' .`, shown);
  podman('import', ...environment.flatMap((value) => ['--change', `ENV ${value}`]), `${store}.tar`, `localhost/${from}`);
  rmSync(`${store}.tar`);
  execFileSync('buildah', ['build', '--isolation', 'chroot', '--pull-never', '--format', 'docker', '--build-arg', `TASKCAST_COMMIT=${commit}`, '--tag', NAME, REPO], shown);
}

async function check() {
  const [image] = JSON.parse(podman('image', 'inspect', NAME));
  console.log(`the image has ${(image.Size / 1e6).toFixed(1)} MB in ${image.RootFS.Layers.length} layer`);
  assert.ok(image.Size < MOST_BYTES);
  assert.equal(image.Config.User, `${NOBODY}:${NOBODY}`);
  assert.equal(image.Config.StopSignal, 'SIGTERM');
  assert.ok(image.Labels['org.opencontainers.image.licenses']);
  assert.deepEqual(image.Healthcheck.Test, ['CMD', '/taskcast', 'health']);

  const limit = execSync('ulimit -Hn', { encoding: 'utf8' }).trim();
  const id = podman('run', '--detach', '--read-only', '--read-only-tmpfs=false', '--cap-drop', 'all', '--security-opt', 'no-new-privileges', '--network', 'none', '--memory', '256m',
    '--ulimit', `nofile=${limit}:${limit}`, '--ulimit', 'nproc=1000:1000', '--env', `JWT_SECRET=${commit}`, NAME);
  try {
    await until(() => podman('healthcheck', 'run', id) === '', 'it is healthy', 30_000);
    const pid = podman('inspect', '--format', '{{.State.Pid}}', id);
    assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), new RegExp(`^Uid:\\s+${NOBODY}\\s.*^CapEff:\\s+0+$`, 'ms'));
    assert.match(readFileSync(`/proc/${pid}/mountinfo`, 'utf8'), /^\S+ \S+ \S+ \S+ \/ ro[, ]/m);
    const health = execFileSync('nsenter', [`--net=/proc/${pid}/ns/net`, 'curl', '-fs', 'http://127.0.0.1:3000/api/health'], { encoding: 'utf8' });
    const version = podman('exec', id, '/taskcast', '--version');
    console.log(`${version}: ${health}`);
    assert.ok(version.endsWith(`+${commit.slice(0, 12)}`));
    assert.equal(JSON.parse(health).status, 'ok');
    assert.ok(health.includes(commit.slice(0, 12)));
    assert.throws(() => podman('exec', id, '/bin/sh'), 'there is no shell');
    podman('stop', '--time', '20', id);
    const { ExitCode, OOMKilled } = JSON.parse(podman('inspect', '--format', '{{json .State}}', id));
    assert.deepEqual({ ExitCode, OOMKilled }, { ExitCode: 0, OOMKilled: false });
  } finally {
    console.log(podman('logs', id));
    podman('rm', '--force', '--volumes', id);
  }
}

try {
  build();
  await check();
  console.log('the image is as the Dockerfile says');
} finally {
  podman('rmi', '--all', '--force');
  rmSync(store, { recursive: true, force: true });
}
