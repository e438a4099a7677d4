import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { type Stack, startStack } from '../../deploy/local/stack.ts';
import { isLong } from '../long.ts';
import { type Index, startIndex, wheelOf } from '../wheels.ts';
import { until } from '../world.ts';
import { type Api, ended, expectStatus, frames, type Json, publish, run, signUp } from './rest.ts';

const IMPORTS = 'import tiny\ndef main():\n    return [tiny.VERSION, tiny.__file__]\n';

describe('an environment of libraries', function () {
  this.timeout(60_000);
  let folder: string;
  let index: Index;
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(120_000);
    folder = mkdtempSync(join(tmpdir(), 'millrace-environments-'));
    mkdirSync(join(folder, 'built'));
    symlinkSync(realpathSync('build/environments/base'), join(folder, 'built/base'));
    index = await startIndex();
    stack = await startStack({
      settings: { MILLRACE_BUILDER_INDEX_URL: index.url, MILLRACE_AUTOMATION_ENVIRONMENTS: join(folder, 'built') },
    });
    ann = await signUp(stack.urls.base);
  });
  after(async function () {
    this.timeout(60_000);
    index?.release();
    await stack?.stop();
    index?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  // A library that no other test has.
  let libraries = 0;
  let first = ''; // what was built before
  const library = (version = '1.0'): { file: string; requirement: string } => {
    libraries += 1;
    const file = `tiny${libraries}-${version}-py3-none-any.whl`;
    const files = { 'tiny.py': `VERSION = '${version}'\nNUMBER = ${libraries}\n` };
    return { file, requirement: index.add(file, wheelOf(`tiny${libraries}`, version, files)) };
  };
  const create = async (requirements: string, name = 'data', api = ann): Promise<Json> =>
    (await expectStatus(201, api.post('/v1/environments', { name, requirements }))).body;

  // The lines of a build and the environment at its end.
  async function watched(id: string, api = ann, cursor = ''): Promise<{ lines: Json[]; environment: Json }> {
    const lines: Json[] = [];
    for await (const frame of frames(api, `/v1/environments/${id}/build${cursor && `?cursor=${cursor}`}`, { sse: true })) {
      if (frame.line) lines.push(frame.line);
      if (frame.end) return { lines, environment: frame.end.environment };
    }
    throw new Error('the watch ended without an end frame');
  }
  const texts = (lines: Json[]): string => lines.map(({ text }) => text).join('\n');

  it('is built, and gives scripts what base lacks; revisions keep theirs when the name moves on', async () => {
    first = library('1.0').requirement;
    const made = await create(`# for the reports\n${first}\n`);
    expect(made).to.include({ name: 'data', error: '' });
    expect(made.digest).to.match(/^[0-9a-f]{64}$/);
    const { lines, environment } = await watched(made.id);
    expect(environment).to.deep.include({ state: 'READY', packages: ['tiny1==1.0'], problems: [] });
    expect(lines.map(({ seq }) => seq)).to.deep.equal(lines.map((_, at) => at));
    expect(texts(lines)).to.match(/Collecting tiny1==1\.0[\s\S]*installing, without a network[\s\S]*ready: 1 libraries/);
    expect(texts(lines)).not.to.include(folder);
    expect((await watched(made.id, ann, lines[1].cursor)).lines).to.deep.equal(lines.slice(2));

    const automation = await publish(ann, IMPORTS, { environment: 'data' });
    const done = await ended(ann, await run(ann, automation));
    expect([done.state, done.output?.[0]]).to.deep.equal(['SUCCEEDED', '1.0']);
    const { spec } = (await expectStatus(200, ann.get(`/v1/automations/${automation}/revisions/1`))).body;
    expect([spec.environment, spec.environmentDigest]).to.deep.equal(['data', made.digest]);

    const next = await create(library('2.0').requirement);
    await watched(next.id);
    expect((await ended(ann, await run(ann, automation))).output[0]).to.equal('1.0');
    await expectStatus([200, 201], ann.post(`/v1/automations/${automation}/revisions`, { spec: { source: IMPORTS, environment: 'data' } }));
    await expectStatus(200, ann.post(`/v1/automations/${automation}:publish`));
    expect((await ended(ann, await run(ann, automation))).output[0]).to.equal('2.0');

    const without = await ended(ann, await run(ann, await publish(ann, IMPORTS)));
    expect([without.state, without.error.type]).to.deep.equal(['FAILED', 'ModuleNotFoundError']);
  });

  it('is built once for all who ask at the same time; executions wait for it and say so', async () => {
    const { file, requirement } = library();
    index.hold(file);
    const made = await create(requirement, 'slow');
    const bob = await signUp(stack.urls.base);
    const same = await create(`${requirement}  # the same\n`, 'other', bob);
    expect(same.digest).to.equal(made.digest);
    const automation = await publish(ann, IMPORTS, { environment: 'slow' });
    const id = await run(ann, automation);
    const explained = await until('the reason', async () => {
      const { body } = await ann.get(`/v1/executions/${id}:explain`);
      return body.causes[0].reason === 'ENVIRONMENT_BUILDING' && body;
    });
    expect(explained.causes[0].message).to.include('slow');
    expect(['QUEUED', 'RUNNING']).to.include(explained.state);
    expect((await ended(ann, await run(ann, await publish(ann, 'print("meanwhile")')))).state).to.equal('SUCCEEDED');
    index.release();
    const builds = await Promise.all([watched(made.id), watched(same.id, bob)]);
    expect(builds.map(({ environment }) => environment.state)).to.deep.equal(['READY', 'READY']);
    expect(index.fetched(file)).to.equal(1);
    expect(await ended(ann, id)).to.deep.include({ state: 'SUCCEEDED', attemptCount: 1 });
    expect((await create(requirement, 'again')).state).to.equal('READY');
  });

  it('fails by line, cannot be named then, and can be built again; it never runs a setup.py', async () => {
    const { requirement } = library();
    const wrong = requirement.replace(/sha256:\w+/, `sha256:${'0'.repeat(64)}`);
    const made = await create(`# first line\n\n${wrong}\n`, 'wrong');
    const { lines, environment } = await watched(made.id);
    expect(environment).to.include({ state: 'FAILED' });
    expect(environment.problems).to.have.length(1);
    expect(environment.problems[0].line).to.equal(3);
    expect(environment.problems[0].message).to.include('its file is not one that the hashes name');
    expect(texts(lines)).to.include('failed: ');
    expect((await watched(made.id)).lines).to.deep.equal(lines);
    const automation = (await expectStatus(201, ann.post('/v1/automations', { name: 'named wrong' }))).body.id;
    const refused = await ann.post(`/v1/automations/${automation}/revisions`, { spec: { source: 'pass', environment: 'wrong' } });
    expect([refused.status, refused.body.details[0].reason]).to.deep.equal([400, 'ENVIRONMENT_FAILED']);

    const file = 'late-1.0-py3-none-any.whl';
    const wheel = wheelOf('late', '1.0', { 'late.py': '' });
    const source = index.add('late-1.0.tar.gz', Buffer.from('with a setup.py'));
    const late = await create(`${source} ${index.add(`elsewhere-${file}`, wheel).split(' ')[1]}`, 'late');
    expect((await watched(late.id)).environment.problems[0].message).to.include('nothing but wheels is installed');
    expect(index.fetched('late-1.0.tar.gz')).to.equal(0);
    expect(readdirSync(join(folder, 'built')).filter((name) => name.startsWith('.'))).to.deep.equal([]);
    index.add(file, wheel);
    await expectStatus(200, ann.post(`/v1/environments/${late.id}:retry`));
    expect((await watched(late.id)).environment).to.include({ state: 'READY', error: '' });
  });

  it('is built anew when its files are gone, while executions wait', async () => {
    const made = await create(first, 'gone');
    expect(made.state).to.equal('READY');
    const automation = await publish(ann, IMPORTS, { environment: 'gone' });
    rmSync(join(folder, 'built', made.digest), { recursive: true });
    const id = await run(ann, automation);
    await until('the reason', async () => {
      const { body } = await ann.get(`/v1/executions/${id}:explain`);
      return body.causes[0].reason === 'ENVIRONMENT_BUILDING';
    });
    await expectStatus(200, ann.post(`/v1/environments/${made.id}:retry`));
    expect((await ended(ann, id)).state).to.equal('SUCCEEDED');
  });

  it('is nobody else’s by name or id, and goes when it is deleted; what uses it goes on', async () => {
    const made = await create(first, 'mine');
    const automation = await publish(ann, IMPORTS, { environment: 'mine' });
    const bob = await signUp(stack.urls.base);
    expect((await bob.get(`/v1/environments/${made.id}`)).status).to.equal(404);
    expect((await bob.get('/v1/environments')).body.environments).to.deep.equal([]);
    const own = (await expectStatus(201, bob.post('/v1/automations', { name: 'b' }))).body.id;
    const unknown = await bob.post(`/v1/automations/${own}/revisions`, { spec: { source: 'pass', environment: 'mine' } });
    expect([unknown.status, unknown.body.details[0].reason]).to.deep.equal([400, 'ENVIRONMENT_UNKNOWN']);
    expect((await ann.get('/v1/environments?name=mine')).body.environments.map(({ id }: Json) => id)).to.deep.equal([made.id]);
    await expectStatus(204, ann.call('DELETE', `/v1/environments/${made.id}`));
    expect((await ann.get(`/v1/environments/${made.id}`)).status).to.equal(404);
    expect((await ended(ann, await run(ann, automation))).state).to.equal('SUCCEEDED');
  });

  it('is begun anew when the builder is killed', async function () {
    if (!isLong) this.skip(); // a lost builder is noticed after 15 seconds
    const { file, requirement } = library();
    index.hold(file);
    const made = await create(requirement, 'killed');
    await until('the download', () => index.fetched(file) === 1);
    await stack.kill('builder');
    index.release();
    const { lines, environment } = await watched(made.id);
    expect(environment.state).to.equal('READY');
    expect(texts(lines)).to.include('the builder was lost: the build begins anew');
    expect(readdirSync(join(folder, 'built')).filter((name) => name.startsWith('.'))).to.deep.equal([]);
  });

  it('does what docs/ENVIRONMENTS.md says', async () => {
    const blocks = [...readFileSync('docs/ENVIRONMENTS.md', 'utf8').matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block = '']) => block);
    const wheel = wheelOf('humanize', '4.12.0', { 'humanize.py': 'def naturalsize(size):\n    return f"{size / 1e6:.1f} MB"\n' });
    writeFileSync(join(folder, 'requirements.txt'), `${index.add('humanize-4.12.0-py3-none-any.whl', wheel)}\n`);
    const id = await publish(ann, 'pass');
    const tools = `cd ${folder}\nln -sfn ${process.cwd()}/build build`;
    const script = ['set -euo pipefail', 'curl() { command curl --fail-with-body "$@"; }', tools, ...blocks].join('\n');
    const env = { ...process.env, BASE: stack.urls.base, HOST: stack.urls.host, TOKEN: ann.token, ID: id };
    const { stdout } = await promisify(execFile)('bash', ['-c', script], { env, timeout: 50_000 }).catch((error) => {
      throw new Error(`the examples ended with ${error.code}:\n${error.stdout}\n${error.stderr}`);
    });
    for (const words of [
      'installing, without a network',
      '"packages":["humanize==4.12.0"]',
      '"environment":"reports"',
      '"output":"1.0 MB"',
      '{"state":"QUEUED"}',
    ])
      expect(stdout).to.include(words);
  });
});
