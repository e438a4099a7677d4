// environment.ts: what an environment of libraries is: which requirements can be built, and what decides that two builds are the same.
import { createHash } from 'node:crypto';
import type { Environment, EnvironmentProblem } from '#gen/millrace/automations/v1/environment.ts';
import { invalid } from '#platform/errors.ts';
import { faults } from './automation.ts';

export const BASE = 'base';

// A library as a requirements file asks for it.
interface Requirement {
  line: number; // where it begins
  name: string; // as the index compares names (PEP 503)
  marker: string;
  text: string; // in one line, sorted and without comments: what pip is told
}
export interface Accepted {
  name: string;
  requirements: string; // as the caller wrote them
  normal: string; // what decides about the build
}

const MAX_LIBRARIES = 500;
const VERSION = 1; // of how environments are built; another one makes others
const NAME = /^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:\[([A-Za-z0-9._,\s-]*)\])?\s*/;
const PINNED = /^==\s*([A-Za-z0-9][A-Za-z0-9.!+_-]*)\s*(?:;\s*([A-Za-z0-9_ .<>=!~'"()]+?)\s*)?$/;
const HASH = /\s--hash[=\s]\s*(\S+)/g;
const SHA256 = /^sha256:[0-9a-f]{64}$/;

export function accept({ name, requirements }: Pick<Environment, 'name' | 'requirements'>): Accepted {
  if (name === '') throw invalid('environment.name', 'must not be empty');
  if (name === BASE) throw invalid('environment.name', 'must not be base: every server has one of that name');
  const { found, problems } = read(requirements);
  if (problems.length > 0) throw unbuildable(problems);
  return { name, requirements, normal: normalOf(found) };
}

// Of what is built for which platform.
export const digestOf = (normal: string, platform: string): Buffer =>
  createHash('sha256')
    .update([`millrace-environment ${VERSION}`, platform, normal].join('\0'))
    .digest();

// The line in the caller's own file of each of the normal requirements.
export function linesOf(requirements: string): number[] {
  const { found } = read(requirements);
  return sorted(found).map(({ line }) => line);
}

const sorted = (found: readonly Requirement[]): Requirement[] =>
  [...found].sort((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : 0));

const normalOf = (found: readonly Requirement[]): string =>
  sorted(found)
    .map(({ text }) => text)
    .join('\n');

// Source: pip's requirements file format, of which nothing is taken but libraries by name, version and hash.
function read(text: string): { found: Requirement[]; problems: EnvironmentProblem[] } {
  const found: Requirement[] = [];
  const problems: EnvironmentProblem[] = [];
  for (const { line, words } of logicalLines(text)) {
    try {
      const one = requirementOf(line, words);
      const same = found.find(({ name, marker }) => name === one.name && !(marker !== '' && one.marker !== '' && marker !== one.marker));
      if (same) throw new Error(`${one.name} stands in line ${same.line} already`);
      found.push(one);
    } catch (error) {
      problems.push({ line, message: (error as Error).message });
    }
  }
  if (found.length + problems.length === 0) problems.push({ line: 0, message: 'there are no libraries' });
  if (found.length > MAX_LIBRARIES) problems.push({ line: 0, message: `there are more than ${MAX_LIBRARIES} libraries` });
  return { found, problems };
}

// Lines that end with a backslash go on in the next; comments are left out.
function* logicalLines(text: string): Generator<{ line: number; words: string }> {
  let words = '';
  let begin = 0;
  for (const [index, raw] of text.split(/\r\n|\r|\n/).entries()) {
    const isComment = /^\s*#/.test(raw);
    if (isComment && words !== '') continue; // pip leaves it out between the parts of a line
    if (words === '') begin = index + 1;
    const bare = raw.replace(/(^|\s)#.*$/, '').trimEnd();
    const goesOn = bare.endsWith('\\');
    words += ` ${goesOn ? bare.slice(0, -1) : bare}`;
    if (goesOn) continue;
    if (words.trim() !== '') yield { line: begin, words: words.trim() };
    words = '';
  }
  if (words.trim() !== '') yield { line: begin, words: words.trim() };
}

function requirementOf(line: number, words: string): Requirement {
  if (words.startsWith('-')) throw new Error(`options such as ${words.split(/[\s=]/)[0]} may not stand here`);
  const hashes = [...words.matchAll(HASH)].map(([, hash = '']) => hash.toLowerCase());
  const rest = words.replace(HASH, '').trim();
  const [head = '', given = '', extras = ''] = NAME.exec(rest) ?? [];
  if (given === '') throw new Error('it does not begin with the name of a library');
  const after = rest.slice(head.length);
  if (after.startsWith('@') || /:\/\//.test(after)) throw new Error(`${given} has an address: libraries come from the index only`);
  const [, version = '', marker = ''] = PINNED.exec(after) ?? [];
  if (version === '') throw new Error(`${given} is not pinned: write ${given}==<version> and its hashes, and nothing else`);
  if (hashes.length === 0) throw new Error(`${given} has no hash: add --hash=sha256:<hash> for each of its wheels`);
  const wrong = hashes.find((hash) => !SHA256.test(hash));
  if (wrong !== undefined) throw new Error(`${given} has a hash that is not sha256 in hexadecimal: ${wrong.slice(0, 80)}`);
  const name = given.toLowerCase().replace(/[-_.]+/g, '-');
  const wanted = extras
    .split(',')
    .map((extra) => extra.trim().toLowerCase())
    .filter(Boolean)
    .sort();
  const what = `${name}${wanted.length > 0 ? `[${wanted.join(',')}]` : ''}==${version}`;
  const text = [`${what}${marker ? ` ; ${marker}` : ''}`, ...[...new Set(hashes)].sort().map((hash) => `--hash=${hash}`)].join(' ');
  return { line, name, marker, text };
}

function unbuildable(problems: readonly EnvironmentProblem[]): Error {
  const places = problems.map(({ line, message }) => ({
    field: line > 0 ? `environment.requirements:${line}` : 'environment.requirements',
    description: message,
  }));
  const said = problems.slice(0, 3).map(({ line, message }) => (line > 0 ? `line ${line}: ${message}` : message));
  return faults.invalid('ENVIRONMENT_INVALID', `the requirements cannot be built: ${said.join('; ')}`, places);
}

// What a revision may be written or published with. FAILED_PRECONDITION when its build has failed.
export function mustNotHaveFailed(name: string, state: string | undefined): void {
  if (state === 'FAILED')
    throw faults.failedPrecondition(
      'ENVIRONMENT_FAILED',
      `the build of the environment ${name} failed: build it again, or make another one`,
      {
        name,
      },
    );
}

export const unknownEnvironment = (name: string): Error =>
  faults.invalid('ENVIRONMENT_UNKNOWN', `the workspace has no environment called ${name}: make it first`, [
    { field: 'spec.environment', description: 'must be the name of an environment of the workspace, or base' },
  ]);
