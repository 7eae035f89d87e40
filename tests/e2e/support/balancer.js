// nginx or HAProxy with the configuration of deploy/, in front of the tests' gateways.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { haproxy, nginx, REPO } from './paths.js';
import { freePort } from './ports.js';
import { killGroup, start } from './processes.js';
import { until } from './until.js';

/** The file of deploy/ with the addresses of these nodes and the listening port. The rest stays unchanged. */
function configured(file, listen, ports) {
  let text = readFileSync(join(REPO, 'deploy', file), 'utf8');
  for (const [from, to] of [listen, ...ports.map((port, n) => [`taskcast-${n + 1}:3000`, `127.0.0.1:${port}`])]) {
    if (!text.includes(from)) throw new Error(`${file} has no ${from}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

export class Balancer {
  /** In front of three gateways, by their ports. */
  static async nginx(ports) {
    const dir = mkdtempSync(join(tmpdir(), 'nginx-'));
    mkdirSync(join(dir, 'tmp'));
    const port = await freePort();
    writeFileSync(join(dir, 'taskcast.conf'), configured('nginx/taskcast.conf', ['listen 80;', `listen 127.0.0.1:${port};`], ports));
    // nginx trusts X-Forwarded-For of this machine, so that clients of one machine can have many addresses.
    const folders = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${dir}/tmp/${name};`).join(' ');
    writeFileSync(join(dir, 'nginx.conf'), `daemon off; ${process.getuid() === 0 ? 'user root;' : ''} worker_processes 1; pid ${dir}/pid; error_log ${dir}/error.log;
      worker_rlimit_nofile 8192; events { worker_connections 4096; } http { access_log off; ${folders}
      set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For; include ${dir}/taskcast.conf; }`);
    return Balancer.#of(port, dir, nginx(), ['-p', dir, '-c', join(dir, 'nginx.conf'), '-e', join(dir, 'error.log')]);
  }

  static async haproxy(ports) {
    const dir = mkdtempSync(join(tmpdir(), 'haproxy-'));
    const port = await freePort();
    writeFileSync(join(dir, 'haproxy.cfg'), configured('haproxy/haproxy.cfg', ['bind :80', `bind 127.0.0.1:${port}`], ports));
    return Balancer.#of(port, dir, haproxy(), ['-db', '-f', join(dir, 'haproxy.cfg')]);
  }

  static async #of(port, dir, program, args) {
    const balancer = new Balancer();
    Object.assign(balancer, { port, dir, url: `http://127.0.0.1:${port}`, output: '' });
    balancer.child = start(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [balancer.child.stdout, balancer.child.stderr]) stream.on('data', (text) => (balancer.output += text));
    await until(async () => (await fetch(`${balancer.url}/api/health`)).status === 200, () => `the balancer reaches a node: ${balancer.output}`);
    return balancer;
  }

  /** The last lines of nginx's error log, or of HAProxy's output. */
  lastLines(n = 20) {
    const log = join(this.dir, 'error.log');
    const text = existsSync(log) ? readFileSync(log, 'utf8') : this.output;
    return text.trimEnd().split('\n').slice(-n).join('\n');
  }

  async health() {
    return (await fetch(`${this.url}/api/health`)).json();
  }

  async stop() {
    killGroup(this.child);
    await this.child.exited;
  }
}
