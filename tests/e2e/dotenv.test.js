// Settings in `.env`: the gateway reads the same bytes as Node's dotenv.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';

import dotenv from 'dotenv';

import { binary } from './support/paths.js';
import { run } from './support/processes.js';
import { test } from './support/scenario.js';

let cwd;

before(() => {
  cwd = mkdtempSync(join(tmpdir(), 'taskcast-dotenv-'));
});
after(() => rmSync(cwd, { recursive: true, force: true }));

/** Runs `taskcast` in a folder with this `.env`. */
async function taskcast(content, args) {
  writeFileSync(join(cwd, '.env'), content);
  return run(binary(), args, { cwd, env: { PATH: process.env.PATH, HOME: cwd } });
}

/** The token that is signed with the `JWT_SECRET` of a file; undefined where the file can't be read. */
async function tokenOf(content) {
  const { code, stdout, stderr } = await taskcast(content, ['token', '--sub', 'alice']);
  if (code === 0) return stdout.trim();
  assert.match(stderr, /\.env: lines? \d[\d, ]*(?:and \d+ more )?(?:is|are) not NAME=value/, JSON.stringify(content));
  return undefined;
}

/** Asserts that a token is signed with the secret that Node's dotenv finds in a file. */
function assertSame(content, token) {
  const secret = dotenv.parse(content).JWT_SECRET;
  const [header, payload, signature] = token.split('.');
  const wanted = createHmac('sha256', secret).update(`${header}.${payload}`).digest('base64url');
  assert.equal(signature, wanted, `${JSON.stringify(content)} is ${JSON.stringify(secret)} for Node's dotenv`);
}

const VALUES = [
  '"aB3$xY"', 'aB3$xY', '${HOME}', '"${HOME}"', "'${HOME}'", '`${HOME}`', '$$x', '\\$x', '"\\$x"', '"a\\"b"', "'a\\'b'", '"a\\\\b"', 'a\\nb', '"a\\nb"', "'a\\nb'",
  '"a\\rb"', '"a\\\\nb"', '"a\\tb"', 'a#b', '"a#b"', "'a#b'", '`a#b`', 'a # b', '"a" # b', "'a' # 'b'", '  a b  ', '"  a b  "', "it's", '"it\'s"', '`it\'s "it"`',
  '"a', "'a", '`a', 'a"', '"a" b', '"a" "b"', "'a''b'", 'a=b==', '"a\nb"', "'a\r\nb'", '`a\rb`', '"a\\', '"a\\"', 'a\\', 'é🎉', '"é\u00a0"', 'a\u00a0', 'a\tb', '!%&*()[]{}|;<>?~^',
];

test('the gateway reads values like dotenv, in every kind of quotes, with every kind of comment and line end', async () => {
  for (const value of VALUES) {
    for (const content of [`JWT_SECRET=${value}`, `# x\nexport JWT_SECRET = ${value}\r\nB='c'\n`, `JWT_SECRET=no\nJWT_SECRET: ${value}\n`, `\ufeffJWT_SECRET=${value} # c\n`]) {
      const token = await tokenOf(content);
      assert.ok(token, JSON.stringify(content));
      assertSame(content, token);
    }
  }
});

test('the gateway reads any file like dotenv, or names the lines that it cannot read', async () => {
  // A fixed seed gives the same files in each run.
  let seed = 1;
  const next = (below) => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  const pieces = ['"', "'", '`', '#', ' ', '\n', '\r\n', '\\', '\\n', '$A', '=', 'a', 'B', 'JWT_SECRET=', '\nexport JWT_SECRET=', '\nC: ', "\\'", '\t', '\u00a0', '\ufeff'];
  let read = 0;
  for (let file = 0; file < 400; file += 1) {
    const content = `JWT_SECRET=x${Array.from({ length: 1 + next(14) }, () => pieces[next(pieces.length)]).join('')}`;
    if (!dotenv.parse(content).JWT_SECRET?.trim()) continue;
    const token = await tokenOf(content);
    if (token === undefined) continue;
    read += 1;
    assertSame(content, token);
  }
  assert.ok(read > 100, `only ${read} files could be read`);
});

test('an error about an unreadable line names its number and shows none of its content', async () => {
  const { code, stderr } = await taskcast('PORT=3000\n\nJWT_SECRET hunter2\nPORT=1\nhunter2\n', ['token', '--sub', 'alice']);
  assert.equal(code, 2);
  assert.match(stderr, /\.env: lines 3, 5 are not NAME=value/);
  assert.ok(!stderr.includes('hunter2'), stderr);
});
