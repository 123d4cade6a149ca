// SPDX-License-Identifier: MIT OR Apache-2.0
// scripts/demo as a child, and what it leaves in the process table.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('../../../../../scripts/demo', import.meta.url));

const read = (file) => {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
};

/** pid → { parent, command line, environment } of every process there is. */
function processes() {
  const found = new Map();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    // The fields after the command, which is in brackets and may hold spaces: state, parent.
    const [state, parent] = read(`/proc/${name}/stat`).replace(/^.*\) /s, '').split(' ');
    if (!state || state === 'Z') continue;
    const words = (file) => read(`/proc/${name}/${file}`).split('\0').filter(Boolean);
    found.set(Number(name), { parent: Number(parent), command: words('cmdline'), environment: words('environ') });
  }
  return found;
}

export class Demo {
  output = '';

  /** Starts the demo in a process group of its own, as a shell in a terminal does. */
  constructor(args, { tmp }) {
    const env = { ...process.env, TMPDIR: tmp };
    // These would send the demo to another server.
    for (const name of Object.keys(env)) if (/^LIVEKIT_(?!SERVER$)/.test(name)) delete env[name];
    this.child = spawn(script, args, { detached: true, env, stdio: ['pipe', 'pipe', 'pipe'] });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { this.output += text; });
    }
    this.exit = new Promise((resolve) => this.child.on('close', (code, signal) => resolve({ code, signal })));
    this.exit.then((result) => { this.ended = result; });
  }

  /** Presses Enter. */
  enter() {
    this.child.stdin.write('\n');
  }

  /** The page's address, once it is said. */
  async address(seconds) {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      const found = this.output.match(/Open +(http:\S+)/);
      if (found) return found[1];
      if (this.ended) assert.fail(`the demo ended:\n${this.output}`);
      if (Date.now() > end) assert.fail(`no address within ${seconds} s:\n${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** The demo's own processes with all their descendants: pid → what is known of it. */
  family() {
    const all = processes();
    const family = new Map();
    const add = (pid) => {
      if (family.has(pid) || !all.has(pid)) return;
      family.set(pid, all.get(pid));
      for (const [child, { parent }] of all) if (parent === pid) add(child);
    };
    add(this.child.pid);
    return family;
  }

  /** Ctrl-C reaches the whole foreground process group; other signals mostly the script alone. */
  async end(signal) {
    process.kill(signal === 'SIGINT' ? -this.child.pid : this.child.pid, signal);
    return this.exit;
  }

  /** For the end of a test, whatever happened. */
  async abandon() {
    if (this.ended) return;
    process.kill(this.child.pid, 'SIGTERM');
    await this.exit;
  }
}

/** Those of the pids that still run the same command. */
export function survivors(family) {
  const now = processes();
  return [...family].filter(([pid, { command }]) => now.get(pid)?.command.join(' ') === command.join(' ')).map(([pid, { command }]) => `${pid} ${command.join(' ')}`);
}
