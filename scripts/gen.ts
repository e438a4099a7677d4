// Makes everything under build/ that comes from the contracts: descriptor image, TypeScript and Python stubs.
// Skips the work when no input is newer than the last run and what it made is there.
import { execFileSync } from 'node:child_process';
import { existsSync, globSync, mkdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { assemble } from './proto-deps.ts';

const STAMP = 'build/.generated';
const IMAGE = 'build/image.binpb';
const OUTPUTS = [IMAGE, 'build/gen', 'build/py'];
const inputs = [
  ...globSync('proto/**'), // folders, too: they change when a file is gone
  'buf.yaml',
  'buf.gen.yaml',
  'scripts/gen.ts',
  'scripts/proto-deps.ts',
  'package-lock.json',
];

const changed = (path: string): number => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
const run = (command: string, ...args: string[]) => execFileSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });

function generate(): void {
  mkdirSync('build', { recursive: true });
  assemble();
  run('node_modules/.bin/buf', 'build', '--as-file-descriptor-set', '--exclude-source-info', '-o', IMAGE);
  run('node_modules/.bin/buf', 'generate');
  rmSync('build/py', { recursive: true, force: true });
  mkdirSync('build/py');
  const files = globSync('millrace/**/*.proto', { cwd: 'proto' }).sort();
  run(
    '.venv/bin/python',
    '-m',
    'grpc_tools.protoc',
    `--descriptor_set_in=${IMAGE}`,
    '--python_out=build/py',
    '--pyi_out=build/py',
    '--grpc_python_out=build/py',
    'buf/validate/validate.proto',
    'grpc/reflection/v1/reflection.proto',
    ...files,
  ); // prettier-ignore
  writeFileSync(STAMP, '');
}

const isMade = OUTPUTS.every((path) => existsSync(path));
if (process.argv.includes('--force') || !isMade || inputs.some((path) => changed(path) > changed(STAMP))) {
  const start = performance.now();
  generate();
  utimesSync(STAMP, new Date(), new Date());
  console.log(`generated build/ from ${inputs.length} inputs in ${((performance.now() - start) / 1000).toFixed(1)} s`);
}
