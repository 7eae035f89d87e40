// A terminal with a shell that somebody types into: a real one, with job control, into which whole blocks are pasted.
import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';

import { start } from '../e2e/support/processes.js';
import { until } from '../e2e/support/until.js';

/** What readline writes when it waits for a line. */
const WAITS = '\x1b[?2004h';
/** What the shell is asked to write, invisibly, after each command: how it ended. */
const ENDED = /\x1b\]777;(\d+)\x07/g;
const ASK = `PROMPT_COMMAND='printf "\\033]777;%s\\007" "$?"'`;

const plain = (text) => text.replaceAll(/\x1b\][^\x07]*\x07|\x1b\[[0-9;?]*[A-Za-z]/g, '').replaceAll('\r', '');

export class Terminal {
  #raw = '';
  #typed = 0;

  /** `command` logs somebody in; `transcript` is the file that all of it is kept in. */
  static async open(name, command, transcript) {
    const terminal = new Terminal(name);
    terminal.child = start('script', ['--quiet', '--flush', '--return', '--command', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, TERM: 'xterm' } });
    for (const stream of [terminal.child.stdout, terminal.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        terminal.#raw += text;
        appendFileSync(transcript, plain(text));
      });
    }
    await terminal.#prompt(20_000);
    await terminal.run(ASK);
    return terminal;
  }

  constructor(name) {
    this.name = name;
  }

  /** What came since the last paste. */
  get output() {
    return plain(this.#raw.slice(this.#typed));
  }

  #prompt(within) {
    return until(() => this.#raw.indexOf(WAITS, this.#typed) >= 0, () => `${this.name} has a prompt\n${this.output}`, within);
  }

  /** Pastes a text whose last command stays in the foreground. */
  paste(text) {
    this.#typed = this.#raw.length;
    this.child.stdin.write(`\x1b[200~${text.trimEnd()}\x1b[201~\r`);
  }

  /** Pastes a text and waits for its end. No command in it may fail. Answers what it wrote. */
  async run(text, within = 300_000) {
    this.paste(text);
    await this.#prompt(within);
    const failed = [...this.#raw.slice(this.#typed).matchAll(ENDED)].filter(([, status]) => status !== '0');
    assert.equal(failed.length, 0, `${this.name}: a command failed\n${this.output}`);
    return this.output;
  }

  sees(pattern, within = 30_000) {
    return until(() => pattern.exec(this.output), () => `${this.name} sees ${pattern}\n${this.output}`, within);
  }

  /** Control-C, and the prompt after it. */
  async interrupt() {
    this.#typed = this.#raw.length;
    this.child.stdin.write('\x03');
    await this.#prompt(20_000);
  }
}
