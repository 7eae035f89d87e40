// Child processes that end with the test process that starts them.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';

const running = new Set();

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));
process.on('exit', () => running.forEach(killGroup));

/** Like `spawn`, but in a new process group, which is killed when this process ends, if not earlier. */
export function start(command, args, options = {}) {
  const setpriv = ['/usr/bin/setpriv', '/bin/setpriv'].find((path) => existsSync(path));
  const child = setpriv
    ? spawn(setpriv, ['--pdeathsig', 'KILL', '--', command, ...args], { ...options, detached: true })
    : spawn(command, args, { ...options, detached: true });
  running.add(child);
  child.exited = new Promise((resolve) => {
    child.on('error', (error) => resolve({ code: null, signal: null, error }));
    child.on('close', (code, signal) => resolve({ code, signal }));
  });
  child.exited.then(() => running.delete(child));
  return child;
}

/** Remembers the running children. The returned function kills all children that were started later. */
export function processMark() {
  const before = new Set(running);
  return () => [...running].filter((child) => !before.has(child)).forEach(killGroup);
}

export function killGroup(child) {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

/** Runs a command to its end. */
export async function run(command, args, { input, ...options } = {}) {
  const child = start(command, args, options);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
  child.stdin.end(input);
  return { ...(await child.exited), stdout, stderr };
}
