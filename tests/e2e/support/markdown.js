// Reads the documentation: code blocks with their sections, links and anchors.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { REPO } from './paths.js';

export function pages() {
  const of = (folder) => readdirSync(join(REPO, folder)).filter((name) => name.endsWith('.md')).map((name) => join(folder, name));
  return ['.', 'docs', 'docs/adr', 'tests/e2e'].flatMap(of).map(page);
}

export function page(path) {
  const text = readFileSync(join(REPO, path), 'utf8');
  const blocks = [];
  const headings = [];
  let open;
  text.split('\n').forEach((line, index) => {
    const fence = /^```(.*)$/.exec(line);
    if (open && fence) {
      blocks.push({ ...open, text: open.lines.join('\n') + '\n' });
      open = undefined;
    } else if (open) open.lines.push(line);
    else if (fence) open = { path, language: fence[1].trim(), section: headings.at(-1), line: index + 1, lines: [] };
    else if (/^#+ /.test(line)) headings.push(line.replace(/^#+ /, ''));
  });
  if (open) throw new Error(`${path}:${open.line}: a code block is not closed`);
  return { path, text, blocks, headings };
}

/** The anchors of headings, built like GitHub's. */
export const anchors = ({ headings }) => new Set(headings.map((heading) => heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-')));

/** Targets of links, outside of code. */
export const links = ({ text }) => [...text.replaceAll(/^```[^]*?^```/gm, '').replaceAll(/`[^`\n]*`/g, '').matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target);

/** The name that a block gives itself in its first line. */
export const nameOf = ({ text }) => /^(?:\/\/|#) (\S+\.\w+)\n/.exec(text)?.[1];
