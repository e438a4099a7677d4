// Compares the contracts with the last accepted ones, of the commit that proto/.baseline names. `--accept` names the present commit.
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const BASELINE = 'proto/.baseline';
const BUF = resolve('node_modules/.bin/buf');

export interface Verdict {
  isOk: boolean;
  text: string;
}

// The contracts as they were. buf reads third-party protos beside them, which are the same in both.
function extract(commit: string, to: string, repository: string): void {
  const archive = execFileSync('git', ['archive', '--format=tar', commit, 'proto', 'buf.yaml'], {
    cwd: repository,
    maxBuffer: 64 * 2 ** 20,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  execFileSync('tar', ['-x', '-C', to], { input: archive });
  cpSync(join(repository, 'build/proto-deps'), join(to, 'build/proto-deps'), { recursive: true });
}

// Compares the contracts below `now` with those of a commit of the repository.
export function compare(commit: string, now = '.', repository = '.'): Verdict {
  const hasCommit = spawnSync('git', ['cat-file', '-e', `${commit}^{commit}`], { cwd: repository }).status === 0;
  if (!hasCommit) {
    return {
      isOk: false,
      text: `the accepted contracts are those of commit ${commit}, which is not here: in a shallow clone run \`git fetch --unshallow\``,
    };
  }
  const folder = mkdtempSync(join(tmpdir(), 'millrace-baseline-'));
  try {
    extract(commit, folder, repository);
    const { status, stdout, stderr, error } = spawnSync(BUF, ['breaking', now, '--against', folder], { cwd: repository, encoding: 'utf8' });
    return { isOk: status === 0, text: `${stdout}${stderr}${error?.message ?? ''}`.trim() };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function main(): Verdict {
  if (process.argv.includes('--accept')) {
    const commit = execFileSync('git', ['rev-parse', 'HEAD'], { encoding: 'utf8' });
    writeFileSync(BASELINE, commit);
    return { isOk: true, text: `accepted the contracts of ${commit.trim()}` };
  }
  if (!existsSync(BASELINE)) return { isOk: false, text: `${BASELINE} is missing: it names the commit of the accepted contracts` };
  return compare(readFileSync(BASELINE, 'utf8').trim());
}

if (import.meta.main) {
  const { isOk, text } = main();
  if (text) console.log(text);
  process.exit(isOk ? 0 : 1);
}
