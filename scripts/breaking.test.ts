import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { compare } from './breaking.ts';

describe('the comparison with the accepted contracts', () => {
  let repository: string;
  let commit: string;
  const git = (...args: string[]): string =>
    execFileSync('git', ['-c', 'user.name=test', '-c', 'user.email=test@millrace.test', '-c', 'commit.gpgsign=false', ...args], {
      cwd: repository,
      encoding: 'utf8',
    }).trim();
  const task = () => join(repository, 'proto/millrace/tasks/v1/task.proto');

  before(() => {
    repository = mkdtempSync(join(tmpdir(), 'millrace-breaking-'));
    for (const path of ['proto/millrace', 'build/proto-deps', 'buf.yaml']) cpSync(path, join(repository, path), { recursive: true });
    git('init', '--quiet');
    git('add', 'proto', 'buf.yaml');
    git('commit', '--quiet', '--message', 'accepted');
    commit = git('rev-parse', 'HEAD');
  });
  after(() => rmSync(repository, { recursive: true, force: true }));

  it('accepts the same contracts', () => expect(compare(commit, repository, repository)).to.deep.equal({ isOk: true, text: '' }));

  it('accepts a new field', () => {
    const before = readFileSync(task(), 'utf8');
    writeFileSync(task(), before.replace(/message Task \{/, 'message Task {\n  string colour_of_label = 900;'));
    expect(compare(commit, repository, repository).isOk).to.equal(true);
    writeFileSync(task(), before);
  });

  it('refuses a renamed field', () => {
    const before = readFileSync(task(), 'utf8');
    expect(before).to.match(/ string title = /);
    writeFileSync(task(), before.replace(/ string title = /, ' string headline = '));
    const { isOk, text } = compare(commit, repository, repository);
    expect(isOk).to.equal(false);
    expect(text).to.match(/task\.proto.*"title".*"headline"/s);
    writeFileSync(task(), before);
  });

  it('says when the accepted commit is not here', () => {
    const { isOk, text } = compare('0123456789012345678901234567890123456789', repository, repository);
    expect(isOk).to.equal(false);
    expect(text).to.match(/git fetch --unshallow/);
  });
});
