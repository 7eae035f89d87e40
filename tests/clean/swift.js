// The documentation's Swift, type-checked by Debian's compiler against stubs/swift: the signatures of socket.io-client-swift 16, as far as the
// pages use them, written from that library's sources.
//   make docs-swift
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { pages } from '../e2e/support/markdown.js';
import { PACKAGE } from '../e2e/support/paths.js';
import { debian } from './debian.js';

const root = debian(['swiftlang', 'libc6-dev', 'libstdc++-14-dev']);
const folder = join(root, 'blocks');
const compile = `
  mount -t proc none "$0/proc"; mount --rbind /dev "$0/dev"
  compiler=$(chroot "$0" sh -c 'find /usr/libexec /usr/lib -name swift-frontend | head -n 1')
  exec chroot "$0" sh -euc 'cd /blocks; "$0" -emit-module -module-name SocketIO -parse-as-library SocketIO.swift; "$0" -typecheck -warnings-as-errors -I . -parse-as-library "$1"' "$compiler" "$1"`;

const blocks = pages().flatMap((page) => page.blocks).filter(({ language }) => language === 'swift');
if (blocks.length === 0) throw new Error('no page has a block in Swift');
for (const { path, line, text } of blocks) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  cpSync(join(PACKAGE, 'stubs/swift/SocketIO.swift'), join(folder, 'SocketIO.swift'));
  writeFileSync(join(folder, 'block.swift'), text);
  execFileSync('unshare', ['--mount', '--pid', '--fork', '--kill-child', 'sh', '-euc', compile, root, 'block.swift'], { stdio: ['ignore', 'inherit', 'inherit'] });
  console.log(`${path}:${line}: its types are right`);
}
