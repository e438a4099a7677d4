import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { ArtifactServiceService } from '#gen/millrace/executions/v1/artifact_service.ts';
import { freePort } from '../../deploy/local/ports.ts';
import { type Lab, type Process, ROOT, startLab, stateOf } from '../../services/executions/dispatcher/fixture.test.ts';
import { until } from '../world.ts';

const PLACES = ['artifact.staged:exit:5', 'artifact.kept:exit', 'artifact.committed:exit']; // in the order in which an upload passes them
const CONTENT = Buffer.concat(Array.from({ length: 30 }, (_, n) => Buffer.alloc(100_000, n)));
const SOURCE = `
import millrace
def main():
    return millrace.artifact('crashed', (bytes([n]) * 100_000 for n in range(30)))['sha256']
`;

const hasNotEnded = ({ exitCode, signalCode }: ChildProcess): boolean => exitCode === null && signalCode === null;

describe('the executions area, killed wherever it keeps an artifact', function () {
  this.timeout(120_000);
  let lab: Lab;
  let address: string;
  let runner: Process;
  const children: ChildProcess[] = [];
  before(async () => {
    lab = await startLab();
    address = `127.0.0.1:${await freePort()}`;
  });
  after(async () => {
    for (const child of children) child.kill('SIGKILL');
    await lab.stop();
  });

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
    let child = await start(PLACES[0]);
    runner = await lab.runner({ MILLRACE_EXECUTIONS_URL: address });
    const id = await lab.start(await lab.publish({ source: SOURCE }));
    for (const next of [...PLACES.slice(1), undefined]) {
      if (hasNotEnded(child)) await once(child, 'exit', { signal: AbortSignal.timeout(40_000) });
      expect(child.signalCode).to.equal('SIGKILL');
      child = await start(next);
    }
    const done = await lab.ended(id, 40_000);
    const wanted = createHash('sha256').update(CONTENT).digest('hex');
    expect([stateOf(done), done.output, done.attemptCount], JSON.stringify(done.error)).to.deep.equal(['SUCCEEDED', wanted, 1]);
    const service = lab.world.as(lab.person, ArtifactServiceService);
    const { artifacts } = await service.listArtifacts({ executionId: id, attempt: 0, pageSize: 0, pageToken: '' });
    expect(artifacts.map(({ name, sha256 }) => [name, sha256])).to.deep.equal([['crashed', wanted]]);
    const pieces: Buffer[] = [];
    for await (const { data } of service.downloadArtifact({ id: artifacts[0]?.id ?? '', offset: 0, length: 0 })) pieces.push(data);
    expect(Buffer.concat(pieces).equals(CONTENT)).to.equal(true);
    expect(globSync(join(lab.world.folder, 'blobs/staged/*'))).to.deep.equal([]);
    expect(Number((await lab.world.db('executions')('artifact_usage').first()).bytes)).to.equal(CONTENT.length);
  });

  it('is killed at every place there is', () => {
    const code = globSync('services/**/artifact*.ts', { cwd: ROOT }).filter((file) => !file.endsWith('.test.ts'));
    const found = code.flatMap((file) => [...readFileSync(join(ROOT, file), 'utf8').matchAll(/failpoint\('([a-z_.]+)'\)/g)]);
    expect(found.map(([, name]) => name).sort()).to.deep.equal(PLACES.map((place) => place.split(':')[0]).sort());
  });

  it('leaves nothing of an attempt whose server was killed with it', async () => {
    const child = await start('artifact.staged:exit:5');
    const source = SOURCE.replace('crashed', 'gone');
    const id = await lab.start(await lab.publish({ source, retryPolicy: { maxAttempts: 1 } as never, onLost: 2 }));
    if (hasNotEnded(child)) await once(child, 'exit', { signal: AbortSignal.timeout(40_000) });
    const running = () => lab.world.db('executions')('running').where({ started: true }).first();
    await until('its start to be known: else it would be given to another server', running);
    runner.signal('SIGKILL');
    expect(stateOf(await lab.ended(id, 40_000))).to.equal('FAILED');
    const left = () => lab.world.db('executions')('artifacts').whereNot({ state: 'STORED' }).first();
    expect(await left()).to.include({ name: 'gone', state: 'UPLOADING' });
    await lab.world
      .db('executions')('artifacts')
      .update({ open_time: new Date(Date.now() - 120_000) });
    await start();
    await until('the sweep', async () => !(await left()));
    expect(globSync(join(lab.world.folder, 'blobs/staged/*'))).to.deep.equal([]);
  });
});
