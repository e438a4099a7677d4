// `make lint`: every check that needs no running stack. All are run, so that one run tells all faults.
import { spawnSync } from 'node:child_process';

export interface Step {
  name: string;
  command: readonly string[];
}

export const steps: readonly Step[] = [
  { name: 'contracts: lint', command: ['buf', 'lint'] },
  { name: 'contracts: format', command: ['buf', 'format', '--diff', '--exit-code', 'proto'] },
  { name: 'contracts: policy', command: ['node', 'scripts/contract-lint.ts'] },
  { name: 'contracts: nothing breaks', command: ['node', 'scripts/breaking.ts'] },
  { name: 'TypeScript: types', command: ['tsc', '-p', '.'] },
  { name: 'TypeScript: lint and format', command: ['biome', 'check', '--error-on-warnings', '.'] },
  { name: 'Python: lint', command: ['.venv/bin/ruff', 'check', 'automation'] },
  { name: 'Python: format', command: ['.venv/bin/ruff', 'format', '--check', 'automation'] },
];

export function lint(): { passed: number; failed: number; failures: string[] } {
  const failures = steps.flatMap(({ name, command: [program = '', ...args] }) => {
    const started = performance.now();
    const { status, error } = spawnSync(program, args, { stdio: ['ignore', 'inherit', 'inherit'] });
    const isOk = status === 0 && !error;
    console.log(
      `${isOk ? ' ok ' : 'FAIL'}  ${name} (${((performance.now() - started) / 1000).toFixed(1)} s)${error ? `: ${error.message}` : ''}`,
    );
    return isOk ? [] : [name];
  });
  return { passed: steps.length - failures.length, failed: failures.length, failures };
}

if (import.meta.main) process.exit(lint().failed === 0 ? 0 : 1);
