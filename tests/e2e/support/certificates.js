// Creates a certificate authority and a certificate for 127.0.0.1 with openssl.
import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { run } from './processes.js';

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

async function openssl(cwd, ...args) {
  const { code, stderr } = await run('openssl', args, { cwd });
  assert.equal(code, 0, stderr);
}

/** The paths of the new files. */
export async function certificates() {
  const dir = mkdtempSync(join(tmpdir(), 'certificates-'));
  writeFileSync(join(dir, 'extensions'), 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n');
  await openssl(dir, 'req', '-x509', ...KEY, '-keyout', 'authority.key', '-out', 'authority.pem', '-days', '2', '-subj', '/CN=authority of a test');
  await openssl(dir, 'req', ...KEY, '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=server of a test');
  await openssl(dir, 'x509', '-req', '-in', 'server.csr', '-CA', 'authority.pem', '-CAkey', 'authority.key', '-CAcreateserial', '-days', '2', '-extfile', 'extensions', '-out', 'server.pem');
  return { authority: join(dir, 'authority.pem'), certificate: join(dir, 'server.pem'), key: join(dir, 'server.key') };
}
