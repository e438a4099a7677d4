import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import type { Artifact } from '#gen/millrace/executions/v1/artifact.ts';
import { ArtifactServiceService } from '#gen/millrace/executions/v1/artifact_service.ts';
import type { Execution } from '#gen/millrace/executions/v1/execution.ts';
import { until } from '../../../tests/world.ts';
import { type Lab, type Process, startLab, stateOf } from './fixture.test.ts';

const MIB = 1024 * 1024;
const LIMITS = { MILLRACE_EXECUTIONS_ARTIFACT_MIB: '40', MILLRACE_EXECUTIONS_ARTIFACT_ATTEMPT_MIB: '60' };

describe('what scripts keep', function () {
  this.timeout(60_000);
  let lab: Lab;
  let runner: Process;
  before(async () => {
    lab = await startLab({ env: LIMITS });
    runner = await lab.runner();
  });
  after(() => lab.stop());

  const service = () => lab.world.as(lab.person, ArtifactServiceService);
  const listed = async (executionId: string): Promise<Artifact[]> =>
    (await service().listArtifacts({ executionId, attempt: 0, pageSize: 0, pageToken: '' })).artifacts;
  async function download(id: string): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for await (const { data } of service().downloadArtifact({ id, offset: 0, length: 0 })) pieces.push(data);
    return Buffer.concat(pieces);
  }
  async function run(source: string, spec: object = {}): Promise<{ done: Execution; artifacts: Artifact[] }> {
    const id = await lab.start(await lab.publish({ source, ...spec }));
    const done = await lab.ended(id, 40_000);
    return { done, artifacts: await listed(id) };
  }
  const reasonsOf = async (source: string): Promise<unknown> => {
    const { done } = await run(source);
    expect(stateOf(done), JSON.stringify(done.error)).to.equal('SUCCEEDED');
    return done.output;
  };

  for (const isolation of [1, 2] as const) {
    it(`is bytes, a path, a file, or parts; told in the log; of a process that is ${isolation === 1 ? 'fresh' : 'kept'}`, async () => {
      const source = `
import io, millrace
def main():
    with open('made.txt', 'wb') as file:
        file.write(b'from a path')
    return [
        millrace.artifact('report.csv', b'a,b\\n1,2\\n'),
        millrace.artifact('made.txt'),
        millrace.artifact('other name', 'made.txt', content_type='text/x-mine; charset=utf-8'),
        millrace.artifact('read', io.BytesIO(b'x' * 70_000)),
        millrace.artifact('parts', (b'%d,' % n for n in range(3))),
        millrace.artifact('nothing', b'', retention_days=1),
    ]
`;
      const { done, artifacts } = await run(source, { isolation });
      expect(stateOf(done), JSON.stringify(done.error)).to.equal('SUCCEEDED');
      expect(artifacts.map(({ name, contentType, sizeBytes }) => [name, contentType, sizeBytes])).to.deep.equal([
        ['report.csv', 'text/csv', 8],
        ['made.txt', 'text/plain', 11],
        ['other name', 'text/x-mine; charset=utf-8', 11],
        ['read', 'application/octet-stream', 70_000],
        ['parts', 'application/octet-stream', 6],
        ['nothing', 'application/octet-stream', 0],
      ]);
      expect(done.output).to.deep.equal(
        artifacts.map(({ id, name, sizeBytes, sha256, contentType }) => ({ id, name, size: sizeBytes, sha256, content_type: contentType })),
      );
      const contents = await Promise.all(artifacts.map(({ id }) => download(id)));
      expect(contents.map((content) => createHash('sha256').update(content).digest('hex'))).to.deep.equal(
        artifacts.map(({ sha256 }) => sha256),
      );
      expect(contents.slice(0, 3).map(String)).to.deep.equal(['a,b\n1,2\n', 'from a path', 'from a path']);
      const log = (await lab.logs(done.id)).flatMap(({ entry }) => (entry ? [entry.text] : []));
      expect(log[0]).to.equal(`artifact report.csv: 8 bytes, text/csv, ${artifacts[0]?.id}`);
    });
  }

  it('is large, while nobody holds it in memory', async () => {
    const pid = runner.child.pid;
    const rss = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
    await run('import millrace\nmillrace.artifact("warm", b"x" * 3_000_000)');
    const [before, ourselves] = [rss(), process.memoryUsage().rss / MIB];
    let [peak, ourPeak] = [0, 0];
    const watching = setInterval(() => {
      peak = Math.max(peak, rss());
      ourPeak = Math.max(ourPeak, process.memoryUsage().rss / MIB);
    }, 10);
    const { done, artifacts } = await run('import millrace\nmillrace.artifact("large", (bytes([n]) * (1 << 20) for n in range(40)))');
    clearInterval(watching);
    expect(stateOf(done), JSON.stringify(done.error)).to.equal('SUCCEEDED');
    expect(artifacts[0]?.sizeBytes).to.equal(40 * MIB);
    expect(peak - before).to.be.below(16);
    expect(ourPeak - ourselves).to.be.below(120); // this process collects its garbage when it likes
  });

  it('raises what refused it, and the script goes on', async () => {
    const refused = await reasonsOf(`
import millrace
def main():
    said = []
    def tried(*given, **named):
        try:
            millrace.artifact(*given, **named)
            said.append('kept')
        except millrace.ArtifactError as error:
            said.append(error.reason)
        except Exception as error:
            said.append(type(error).__name__)
    def broken():
        yield b'half'
        raise KeyError
    tried('large', (b'x' * (1 << 20) for _ in range(41)))
    tried('a/b', b'x')
    tried('', b'x')
    tried('x' * 201, b'x')
    tried('type', b'x', content_type='no type')
    tried('days', b'x', retention_days=-1)
    tried('number', 7)
    tried('numbers', [7])
    tried('no such file', 'no such file')
    tried('broken', broken())
    tried('good', b'x')
    return said
`);
    const invalid = 'FIELD_INVALID';
    expect(refused).to.deep.equal([
      'ARTIFACT_TOO_LARGE',
      ...[invalid, invalid, invalid, invalid, invalid],
      ...['TypeError', 'TypeError', 'FileNotFoundError', 'KeyError', 'kept'],
    ]);
  });

  it('is shown by attempt, and not at all when its script was killed in the middle', async () => {
    const source = `
import millrace, os, time
def main():
    name = 'attempt'
    millrace.artifact(name, str(time.time()).encode())
    if not os.environ.get('never'):
        raise ValueError
`;
    const failed = await run(source, { retryPolicy: { maxAttempts: 2, initialInterval: { seconds: 0, nanos: 1e6 } } });
    expect(failed.artifacts.map(({ name, attempt }) => [name, attempt])).to.deep.equal([['attempt', 1], ['attempt', 2]]); // biome-ignore format: a table
    const endless = `
import millrace, time
def parts():
    yield b'x' * 500_000
    print('half', flush=True)
    time.sleep(60)
def main():
    millrace.artifact('endless', parts())
`;
    const timeouts = { startToClose: { seconds: 1, nanos: 0 } };
    const killed = await run(endless, { timeouts, retryPolicy: { maxAttempts: 1 } });
    expect([stateOf(killed.done), killed.artifacts]).to.deep.equal(['TIMED_OUT', []]);
    const suicide = endless.replace('time.sleep(60)', 'time.sleep(1); __import__("os").kill(__import__("os").getpid(), 9)'); // it cannot give it up itself
    const dead = await run(suicide, { retryPolicy: { maxAttempts: 1 } });
    expect([stateOf(dead.done), dead.done.error?.type, dead.artifacts]).to.deep.equal(['FAILED', 'Killed', []]);
    await until(
      'what came of it to go',
      async () => !(await lab.world.db('executions')('artifacts').where({ state: 'UPLOADING' }).first()),
    );
  });

  it('is not kept by a process that the script made, nor by packets that nobody expects', async () => {
    const said = await reasonsOf(`
import json, millrace, os, socket, struct
def main():
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            millrace.artifact('child', b'x')
        except RuntimeError:
            os.write(writer, b'refused')
        os._exit(0)
    said = os.read(reader, 100).decode()
    head = struct.pack('<cBQQ', b'A', 1, 0, 0)
    data = struct.pack('<cBQQ', b'D', 1, 0, 0)
    for packet in (b'[1,"finish"]', b'[9,"open"]', b'[1,"open",1,2,3]', b'nonsense', b'[9,"open","left","text/plain",0]', b'[-1,"open","n","",0]'):
        os.write(3, head + packet)
    for packet in (b'', b'123', struct.pack('<I', 77) + b'of none'):
        os.write(3, data + packet)
    millrace.artifact('good', b'x')
    return said
`);
    expect(said).to.equal('refused');
  });
});
