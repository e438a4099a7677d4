import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { often } from '../../tests/long.ts';
import { unifiedDiff } from './diff.ts';

const diff = (from: string, to: string) => unifiedDiff(from, to, 'a', 'b');
const numbered = (count: number, at?: number) =>
  Array.from({ length: count }, (_, line) => (line === at ? 'changed\n' : `${line}\n`)).join('');

describe('the difference of two texts', () => {
  it('is nothing when they are equal', () => {
    expect(diff('x\n', 'x\n')).to.equal('');
    expect(diff('', '')).to.equal('');
  });

  it('shows changed lines with three lines around them', () => {
    expect(diff(numbered(10), numbered(10, 5))).to.equal('--- a\n+++ b\n@@ -3,7 +3,7 @@\n 2\n 3\n 4\n-5\n+changed\n 6\n 7\n 8\n');
  });

  it('is split where more than six lines lie between changes', () => {
    const far = `${numbered(20, 3).split('\n').slice(0, 15).join('\n')}\nchanged\n${numbered(20).split('\n').slice(16).join('\n')}`;
    expect(diff(numbered(20), far).match(/@@ .* @@/g)).to.deep.equal(['@@ -1,7 +1,7 @@', '@@ -13,7 +13,7 @@']);
  });

  it('tells where a last line has no end, and names empty spans', () => {
    expect(diff('x', 'x\n')).to.equal('--- a\n+++ b\n@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+x\n');
    expect(diff('', 'x\n')).to.equal('--- a\n+++ b\n@@ -0,0 +1 @@\n+x\n');
    expect(diff('x\n', '')).to.equal('--- a\n+++ b\n@@ -1 +0,0 @@\n-x\n');
  });

  it('is the shortest one', () => {
    const changes = (text: string) => text.split('\n').filter((line) => /^[-+]([^-+]|$)/.test(line)).length; // prettier-ignore
    expect(changes(diff('a\nb\nc\na\nb\nb\na\n', 'c\nb\na\nb\na\nc\n'))).to.equal(5);
  });

  it('leads from the one text to the other, as git reads it', () => {
    const folder = mkdtempSync(join(tmpdir(), 'millrace-diff-'));
    const line = fc.constantFrom('', 'a', 'b', 'c', '-', '+', '\\ x', ' ');
    const text = fc
      .tuple(fc.array(line, { maxLength: 25 }), fc.boolean())
      .map(([lines, isEnded]) => lines.join('\n') + (isEnded && lines.length > 0 ? '\n' : ''));
    try {
      fc.assert(
        fc.property(text, text, (from, to) => {
          fc.pre(from !== to);
          const file = join(folder, 'file');
          writeFileSync(file, from);
          execFileSync('git', ['apply', '-p0', '--whitespace=nowarn'], { cwd: folder, input: unifiedDiff(from, to, 'file', 'file') });
          expect(readFileSync(file, 'utf8')).to.equal(to);
        }),
        often('diffs that git applies'),
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('stays within bounds for texts that have nothing in common', () => {
    const text = (from: number) => Array.from({ length: 60_000 }, (_, line) => `${line + from}\n`).join('');
    const whole = diff(text(0), text(1_000_000));
    expect(whole.split('\n').length).to.equal(120_000 + 4);
    const shuffled = Array.from({ length: 65_000 }, (_, line) => `${(line * 7919) % 3}\n`).join('');
    expect(diff(shuffled, shuffled.replaceAll('1', 'x').replaceAll('2', '1'))).to.match(/^--- a/);
  });
});
