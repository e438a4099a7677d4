import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { ArtifactServiceService } from '#gen/millrace/executions/v1/artifact_service.ts';
import { freePort } from '../../deploy/local/ports.ts';
import { type Lab, type Process, ROOT, startLab, stateOf } from '../../services/executions/dispatcher/fixture.test.ts';
import { type Objects, startObjects } from '../objects.ts';
import { until } from '../world.ts';

// In the order in which an upload passes them.
const PLACES = ['artifact.staged:exit:5', 'artifact.kept:exit', 'artifact.committed:exit'];
const STORED = ['blob.part:exit', 'blob.sent:exit'];

const hasNotEnded = ({ exitCode, signalCode }: ChildProcess): boolean => exitCode === null && signalCode === null;

type Kind = 'a folder' | 'an object store';

function cases(suite: Mocha.Suite, store: Kind, places: readonly string[], count: number): void {
  suite.timeout(120_000);
  const content = Buffer.concat(Array.from({ length: count }, (_, n) => Buffer.alloc(100_000, n)));
  const source = `
import millrace
def main():
    return millrace.artifact('crashed', (bytes([n]) * 100_000 for n in range(${count})))['sha256']
`;
  let objects: Objects | undefined;
  let lab: Lab;
  let address: string;
  let runner: Process;
  const children: ChildProcess[] = [];
  before(async () => {
    objects = store === 'a folder' ? undefined : await startObjects();
    lab = await startLab(objects ? { env: objects.env } : {});
    address = `127.0.0.1:${await freePort()}`;
  });
  after(async () => {
    for (const child of children) child.kill('SIGKILL');
    await lab.stop();
    await objects?.stop();
  });
  const left = async (): Promise<string[]> => [
    ...globSync(join(lab.world.folder, 'blobs/staged/*')),
    ...((await objects?.unfinished()) ?? []),
  ];

  // The area in a process of its own, at the same address each time.
  async function start(failpoint?: string): Promise<ChildProcess> {
    const before = children.at(-1);
    if (before && hasNotEnded(before)) {
      before.kill('SIGKILL');
      await once(before, 'exit');
    }
    const child = spawn(process.execPath, ['services/main.ts', '--target=executions'], {
      cwd: ROOT,
      env: {
        ...lab.world.env,
        PATH: process.env.PATH ?? '',
        MILLRACE_GRPC_ADDRESS: address,
        MILLRACE_EXECUTIONS_ARTIFACT_SWEEP_MS: '200',
        ...(failpoint ? { MILLRACE_FAILPOINT: failpoint } : {}),
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    let said = '';
    child.stdout?.on('data', (data) => {
      said += data;
    });
    await until('the area to be ready', () => said.includes('"ready"'), 40_000);
    return child;
  }

  it('keeps it once, whole, and the script notices nothing', async () => {
    let child = await start(places[0]);
    runner = await lab.runner({ MILLRACE_EXECUTIONS_URL: address });
    const id = await lab.start(await lab.publish({ source }));
    for (const next of [...places.slice(1), undefined]) {
      if (hasNotEnded(child)) await once(child, 'exit', { signal: AbortSignal.timeout(40_000) });
      expect(child.signalCode).to.equal('SIGKILL');
      child = await start(next);
    }
    const done = await lab.ended(id, 40_000);
    const wanted = createHash('sha256').update(content).digest('hex');
    expect([stateOf(done), done.output, done.attemptCount], JSON.stringify(done.error)).to.deep.equal(['SUCCEEDED', wanted, 1]);
    const service = lab.world.as(lab.person, ArtifactServiceService);
    const { artifacts } = await service.listArtifacts({ executionId: id, attempt: 0, pageSize: 0, pageToken: '' });
    expect(artifacts.map(({ name, sha256 }) => [name, sha256])).to.deep.equal([['crashed', wanted]]);
    const pieces: Buffer[] = [];
    for await (const { data } of service.downloadArtifact({ id: artifacts[0]?.id ?? '', offset: 0, length: 0 })) pieces.push(data);
    expect(Buffer.concat(pieces).equals(content)).to.equal(true);
    expect(await left()).to.deep.equal([]);
    expect(Number((await lab.world.db('executions')('artifact_usage').first()).bytes)).to.equal(content.length);
  });

  if (store === 'a folder')
    it('leaves nothing of an attempt whose server was killed with it', async () => {
      const child = await start('artifact.staged:exit:5');
      const gone = source.replace('crashed', 'gone');
      const id = await lab.start(await lab.publish({ source: gone, retryPolicy: { maxAttempts: 1 } as never, onLost: 2 }));
      if (hasNotEnded(child)) await once(child, 'exit', { signal: AbortSignal.timeout(40_000) });
      const running = () => lab.world.db('executions')('running').where({ started: true }).first();
      await until('its start to be known: else it would be given to another server', running);
      runner.signal('SIGKILL');
      expect(stateOf(await lab.ended(id, 40_000))).to.equal('FAILED');
      const row = () => lab.world.db('executions')('artifacts').whereNot({ state: 'STORED' }).first();
      expect(await row()).to.include({ name: 'gone', state: 'UPLOADING' });
      await lab.world
        .db('executions')('artifacts')
        .update({ open_time: new Date(Date.now() - 120_000) });
      await start();
      await until('the sweep', async () => !(await row()));
      expect(await left()).to.deep.equal([]);
    });
  else
    it('waits for a store that is away, and goes on when it is back', async () => {
      const sentAgain = () => runner.output().split('an artifact is sent again').length;
      const before = sentAgain();
      objects?.link.cut('refused');
      const id = await lab.start(await lab.publish({ source: source.replace('crashed', 'late') }));
      await until('it to be sent again', () => sentAgain() > before + 1, 40_000);
      expect(stateOf(await lab.get(id))).to.equal('RUNNING');
      objects?.link.mend();
      const done = await lab.ended(id, 40_000);
      expect([stateOf(done), done.output], JSON.stringify(done.error)).to.deep.equal([
        'SUCCEEDED',
        createHash('sha256').update(content).digest('hex'),
      ]);
      expect(await left()).to.deep.equal([]);
    });
}

describe('the executions area, killed wherever it keeps an artifact in a folder', function () {
  cases(this, 'a folder', PLACES, 30);
});
describe('the executions area, killed wherever it keeps an artifact in an object store', function () {
  cases(this, 'an object store', STORED, 90); // in two parts
});

describe('the executions area', () => {
  it('is killed at every place there is', () => {
    const code = globSync('services/**/{artifact,blob}*.ts', { cwd: ROOT }).filter((file) => !file.endsWith('.test.ts'));
    const found = code.flatMap((file) => [...readFileSync(join(ROOT, file), 'utf8').matchAll(/failpoint\('([a-z_.]+)'\)/g)]);
    const killed = new Set([...PLACES, ...STORED].map((place) => place.split(':')[0]));
    expect(found.map(([, name]) => name).sort()).to.deep.equal([...killed].sort());
  });
});
