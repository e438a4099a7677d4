import { createHash, randomBytes } from 'node:crypto';
import { existsSync, globSync, mkdirSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DeleteObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { expect } from 'chai';
import { Artifact } from '#gen/millrace/executions/v1/artifact.ts';
import {
  ArtifactIntakeServiceService,
  StoreArtifactRequest,
  type StoreArtifactResponse,
} from '#gen/millrace/executions/v1/artifact_intake_service.ts';
import { ArtifactServiceService } from '#gen/millrace/executions/v1/artifact_service.ts';
import type { Fault } from '#platform/errors.ts';
import { newBytes, newId, toBytes } from '#platform/id.ts';
import { type Objects, startObjects } from '../../tests/objects.ts';
import { type Person, until, type World } from '../../tests/world.ts';
import { dispositionOf, partOf } from './artifact.ts';
import { caught, claim, clientOf, draft, endExecution, publish, startExecutions } from './fixture.test.ts';

const MIB = 1024 * 1024;
const LIMITS = {
  MILLRACE_EXECUTIONS_ARTIFACT_MIB: '2',
  MILLRACE_EXECUTIONS_ARTIFACT_ATTEMPT_MIB: '3',
  MILLRACE_EXECUTIONS_ARTIFACT_WORKSPACE_MIB: '4',
  MILLRACE_EXECUTIONS_ARTIFACT_COUNT: '5',
  MILLRACE_EXECUTIONS_ARTIFACT_SWEEP_MS: '200',
};
const sha = (data: Buffer): Buffer => createHash('sha256').update(data).digest();

const casesOf = (store: 'a folder' | 'an object store') => () => {
  let world: World;
  let objects: Objects | undefined;
  let ada: Person;
  let automationId: string;
  before(async () => {
    objects = store === 'a folder' ? undefined : await startObjects();
    world = await startExecutions({ ...LIMITS, ...objects?.env });
  });
  after(async () => {
    await world.stop();
    await objects?.stop();
  });
  beforeEach(async () => {
    ada = world.person();
    automationId = await publish(world, { workspace: ada.workspace });
  });

  const rows = () => world.db('executions')('artifacts');
  const files = (kind: string) => globSync(join(world.folder, 'blobs', kind, '**/art_*'));
  const kept = async (): Promise<string[]> => (objects ? await objects.names() : files('kept'));

  // An execution that runs, and the claim of its attempt.
  async function running(claimId = newBytes()): Promise<{ id: string; claimId: Buffer }> {
    const { id } = await clientOf(world, ada).createExecution({ execution: draft(automationId), requestId: '' });
    await claim(world, id, { claim_id: claimId });
    return { id, claimId };
  }
  const openingOf = (to: { id: string; claimId: Buffer }, more: object = {}) => ({
    executionId: to.id,
    claimId: to.claimId,
    artifactId: newId('artifact'),
    name: 'report.csv',
    contentType: 'text/csv',
    retentionDays: 0,
    ...more,
  });
  type Opening = ReturnType<typeof openingOf>;
  const request = (message: object) => StoreArtifactRequest.fromPartial(message);
  const finishOf = (content: Buffer) => request({ finish: { sizeBytes: content.length, sha256: sha(content) } });

  function talk(requests: AsyncIterable<StoreArtifactRequest>, signal?: AbortSignal): AsyncIterable<StoreArtifactResponse> {
    return world.asService('runner', ArtifactIntakeServiceService).storeArtifact(requests, signal ? { signal } : {});
  }
  async function* sending(opening: Opening, content: Buffer, pieceBytes = 60_000): AsyncGenerator<StoreArtifactRequest> {
    yield request({ open: opening });
    for (let at = 0; at < content.length; at += pieceBytes) yield request({ data: content.subarray(at, at + pieceBytes) });
    yield finishOf(content);
  }
  async function stored(requests: AsyncIterable<StoreArtifactRequest>): Promise<Artifact> {
    let last: StoreArtifactResponse | undefined;
    for await (const answer of talk(requests)) last = answer;
    if (!last?.stored) throw new Error('it was not stored');
    return last.stored;
  }
  const keep = (opening: Opening, content: Buffer) => stored(sending(opening, content));

  // Sends so much and breaks off without a word.
  async function breakOff(opening: Opening, content: Buffer): Promise<void> {
    const gone = new AbortController();
    const is = { staged: false };
    async function* some() {
      yield request({ open: opening });
      for (let at = 0; at < content.length; at += 60_000) yield request({ data: content.subarray(at, at + 60_000) });
      await until('it to be staged', () => is.staged);
    }
    for await (const { stagedBytes } of talk(some(), gone.signal)) {
      if (stagedBytes === undefined || stagedBytes < content.length - 256 * 1024) continue;
      is.staged = true;
      gone.abort();
    }
  }

  const service = (person = ada) => world.as(person, ArtifactServiceService);
  const listed = async (executionId: string, more: object = {}): Promise<Artifact[]> =>
    (await service().listArtifacts({ executionId, attempt: 0, pageSize: 0, pageToken: '', ...more })).artifacts;
  async function download(id: string, offset = 0, length = 0): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for await (const { data } of service().downloadArtifact({ id, offset, length })) pieces.push(data);
    return Buffer.concat(pieces);
  }

  it('are kept as they came, listed in order, and read whole or in part', async () => {
    const to = await running();
    const content = randomBytes(1.5 * MIB);
    const made = await keep(openingOf(to), content);
    expect(made).to.deep.include({
      executionId: to.id,
      attempt: 1,
      name: 'report.csv',
      contentType: 'text/csv',
      sizeBytes: content.length,
    });
    expect(made.sha256).to.equal(sha(content).toString('hex'));
    const empty = await keep(openingOf(to, { name: 'nothing' }), Buffer.alloc(0));
    expect(await listed(to.id)).to.deep.equal([made, empty]);
    expect(await listed(to.id, { attempt: 2 })).to.deep.equal([]);
    const page = await service().listArtifacts({ executionId: to.id, attempt: 0, pageSize: 1, pageToken: '' });
    expect(page.artifacts).to.deep.equal([made]);
    expect(await listed(to.id, { pageSize: 1, pageToken: page.nextPageToken })).to.deep.equal([empty]);
    expect(await service().getArtifact({ id: made.id })).to.deep.equal(made);
    expect((await download(made.id)).equals(content)).to.equal(true);
    expect((await download(made.id, MIB, 100)).equals(content.subarray(MIB, MIB + 100))).to.equal(true);
    expect((await download(made.id, content.length - 1)).equals(content.subarray(-1))).to.equal(true);
    expect(await download(empty.id)).to.have.length(0);
    expect((await caught(download(made.id, content.length))).reason).to.equal('RANGE_INVALID');
  });

  it('are nobody’s of another workspace', async () => {
    const to = await running();
    const { id } = await keep(openingOf(to), Buffer.from('a'));
    const bob = service(world.person());
    const tries: (() => Promise<unknown>)[] = [
      () => bob.getArtifact({ id }),
      () => bob.deleteArtifact({ id }),
      () => bob.listArtifacts({ executionId: to.id, attempt: 0, pageSize: 0, pageToken: '' }),
      () => bob.downloadArtifact({ id, offset: 0, length: 0 })[Symbol.asyncIterator]().next(),
    ];
    for (const one of tries) expect((await caught(one())).reason).to.equal('RESOURCE_NOT_FOUND');
    expect(await listed(to.id)).to.have.length(1);
  });

  it('are not there before they are complete, nor when size or hash are others', async () => {
    const to = await running();
    const content = Buffer.from('complete');
    const seen: (string | number)[] = [];
    const wrong = [{ sizeBytes: 7, sha256: sha(content) }, { sizeBytes: 8, sha256: sha(Buffer.from('other')) }]; // biome-ignore format: a table
    for (const finish of wrong) {
      const fault = await caught(
        stored(
          (async function* () {
            yield request({ open: openingOf(to) });
            yield request({ data: content });
            seen.push((await listed(to.id)).length);
            yield request({ finish });
          })(),
        ),
      );
      expect(fault.reason).to.equal('FIELD_INVALID');
    }
    expect(seen).to.deep.equal([0, 0]);
    expect(await listed(to.id)).to.deep.equal([]);
  });

  it('cannot be written by an attempt that was superseded, before the upload or during it', async () => {
    const to = await running();
    expect((await caught(keep(openingOf({ ...to, claimId: newBytes() }), Buffer.from('x')))).reason).to.equal('CLAIM_SUPERSEDED');
    const opening = openingOf(to);
    const fault = await caught(
      stored(
        (async function* () {
          yield* take(sending(opening, Buffer.from('stale')), 2);
          await until('the upload to be open', () => rows().where({ id: toBytes('artifact', opening.artifactId) }).first()); // biome-ignore format: a probe
          await world.db('executions')('running').where({ execution: toBytes('execution', to.id) }).update({ claim_id: newBytes(), attempt: 2 }); // biome-ignore format: one statement
          yield finishOf(Buffer.from('stale'));
        })(),
      ),
    );
    expect(fault.reason).to.equal('CLAIM_SUPERSEDED');
    expect(await listed(to.id)).to.deep.equal([]);
  });

  it('go on where they broke off, and are answered again when the answer was lost', async () => {
    const to = await running();
    const opening = openingOf(to);
    const content = randomBytes(MIB);
    await breakOff(opening, content.subarray(0, 700_000));
    let from = -1;
    let begin: (() => void) | undefined;
    const known = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const requests = (async function* () {
      yield request({ open: opening });
      await known;
      for (let at = from; at < content.length; at += 50_000)
        yield request({ data: content.subarray(at, Math.min(at + 50_000, content.length)) });
      yield finishOf(content);
    })();
    let last: StoreArtifactResponse | undefined;
    for await (const answer of talk(requests)) {
      if (from < 0) from = answer.stagedBytes ?? 0;
      begin?.();
      last = answer;
    }
    expect(from).to.be.within(256 * 1024, 700_000);
    expect(last?.stored?.sha256).to.equal(sha(content).toString('hex'));
    expect((await download(opening.artifactId)).equals(content)).to.equal(true);
    const again: StoreArtifactResponse[] = [];
    for await (const answer of talk(sending(opening, content))) again.push(answer);
    expect(again.map(({ stored }) => stored?.id)).to.deep.equal([opening.artifactId]);
    expect(await listed(to.id)).to.have.length(1);
  });

  it('take the place of those of the same name and attempt', async () => {
    const to = await running();
    const first = await keep(openingOf(to), Buffer.alloc(1.5 * MIB));
    const second = await keep(openingOf(to), Buffer.alloc(1.6 * MIB)); // both together would be too much for an attempt
    const other = await keep(openingOf(to, { name: 'REPORT.csv' }), Buffer.from('b'));
    expect(await listed(to.id)).to.deep.equal([second, other]);
    await until('the content of the first to go', async () => !(await kept()).some((name) => name.endsWith(first.id)));
    expect(await usage()).to.equal(second.sizeBytes + 1);
  });
  const usage = async (): Promise<number> =>
  Number((await world.db('executions')('artifact_usage').where({ workspace: toBytes('workspace', ada.workspace) }).first()).bytes); // biome-ignore format: a query

  it('are bounded: one, those of an attempt, of an execution, of a workspace', async () => {
    const refused = async (to: { id: string; claimId: Buffer }, size: number): Promise<string> =>
      (await caught(keep(openingOf(to, { name: 'more' }), Buffer.alloc(size)))).reason;
    const to = await running();
    expect(await refused(to, 2 * MIB + 1)).to.equal('ARTIFACT_TOO_LARGE');
    await keep(openingOf(to), Buffer.alloc(2 * MIB));
    expect(await refused(to, MIB + 1)).to.equal('ARTIFACT_TOO_LARGE');
    const next = await running();
    await keep(openingOf(next), Buffer.alloc(MIB + 1));
    expect(await refused(next, MIB)).to.equal('ARTIFACT_QUOTA');
    const [first] = await listed(to.id);
    await service().deleteArtifact({ id: first?.id ?? '' });
    await keep(openingOf(next, { name: 'more' }), Buffer.alloc(MIB));
    for (const name of ['3', '4', '5']) await keep(openingOf(next, { name }), Buffer.from(name));
    expect(await refused(next, 1)).to.equal('ARTIFACTS_TOO_MANY');
  });

  it('count for the workspace in the commit itself, however many come at once', async () => {
    const all = await Promise.all(Array.from({ length: 4 }, () => running()));
    const outcomes = await Promise.allSettled(all.map((to) => keep(openingOf(to), Buffer.alloc(1.5 * MIB))));
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).to.have.length(2);
    const reasons = outcomes.flatMap((one) => (one.status === 'rejected' ? [(one.reason as Fault).reason] : []));
    expect(reasons).to.deep.equal(['ARTIFACT_QUOTA', 'ARTIFACT_QUOTA']);
    expect(await usage()).to.equal(3 * MIB);
  });

  it('go when they are deleted, when their time has come, and when nobody completes them', async () => {
    const to = await running();
    const deleted = await keep(openingOf(to, { name: 'deleted' }), Buffer.from('d'));
    const expired = await keep(openingOf(to, { name: 'expired', retentionDays: 1 }), Buffer.from('e'));
    expect(expired.expireTime?.getTime()).to.be.closeTo((expired.createTime?.getTime() ?? 0) + 24 * 3_600_000, 1000);
    await service().deleteArtifact({ id: deleted.id });
    expect((await caught(service().deleteArtifact({ id: deleted.id }))).reason).to.equal('RESOURCE_NOT_FOUND');
    const left = openingOf(to, { name: 'left' });
    await breakOff(left, randomBytes(300_000));
    const givenUp = openingOf(to, { name: 'given up' });
    for await (const _ of talk(then(take(sending(givenUp, Buffer.from('given up')), 2), request({ giveUp: {} })))); // biome-ignore format: reads it to its end
    await until(
      'what was given up to go',
      async () =>
        !(await rows()
          .where({ id: toBytes('artifact', givenUp.artifactId) })
          .first()),
    );
    await rows().where({ id: toBytes('artifact', expired.id) }).update({ expire_time: new Date(Date.now() - 1000) }); // biome-ignore format: one statement
    await rows().where({ id: toBytes('artifact', left.artifactId) }).update({ open_time: new Date(Date.now() - 120_000) }); // biome-ignore format: one statement
    await until(
      'what has expired to go',
      async () =>
        !(await rows()
          .where({ id: toBytes('artifact', expired.id) })
          .first()),
    );
    expect(
      await rows()
        .where({ id: toBytes('artifact', left.artifactId) })
        .first(),
    ).to.include({ state: 'UPLOADING' }); // its claim still holds
    await endExecution(world, to.id, 'SUCCEEDED');
    await until(
      'all rows to go',
      async () =>
        !(await rows()
          .where({ execution: toBytes('execution', to.id) })
          .first()),
    );
    const ids = [deleted.id, expired.id, left.artifactId, givenUp.artifactId];
    expect([...(await kept()), ...files('staged')].filter((file) => ids.some((id) => file.endsWith(id)))).to.deep.equal([]);
    expect(await usage()).to.equal(0);
  });

  it('are not left staged where another machine has completed them', async () => {
    const file = join(world.folder, 'blobs/staged', newId('artifact'));
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, 'the beginning');
    const before = new Date(Date.now() - 25 * 3_600_000);
    utimesSync(file, before, before);
    await until('it to be swept', () => !existsSync(file));
  });

  it('are kept as long as the shortest of what script, automation and installation say', async () => {
    const kept = async (retentionDays: number, artifacts?: { seconds: number; nanos: number }): Promise<number> => {
      automationId = await publish(world, {
        workspace: ada.workspace,
        specs: [artifacts ? { retention: { artifacts, deleteAfterUse: false } } : {}],
      });
      const { createTime, expireTime } = await keep(openingOf(await running(), { retentionDays }), Buffer.from('k'));
      return Math.round(((expireTime?.getTime() ?? 0) - (createTime?.getTime() ?? 0)) / 1000);
    };
    const [hour, day] = [3600, 24 * 3600];
    expect(await kept(0)).to.equal(30 * day);
    expect(await kept(40)).to.equal(30 * day);
    expect(await kept(2)).to.equal(2 * day);
    expect(await kept(0, { seconds: hour, nanos: 0 })).to.equal(hour);
    expect(await kept(2, { seconds: hour, nanos: 0 })).to.equal(hour);
    expect(await kept(2, { seconds: 9 * day, nanos: 0 })).to.equal(2 * day);
    expect(await kept(0, { seconds: 90 * day, nanos: 0 })).to.equal(30 * day);
  });

  it('say that their content cannot be read when it is gone or cut', async () => {
    const to = await running();
    const { id } = await keep(openingOf(to), randomBytes(200_000));
    const [name = ''] = (await kept()).filter((one) => one.endsWith(id));
    if (objects) await objects.client.send(new PutObjectCommand({ Bucket: objects.bucket, Key: name, Body: Buffer.alloc(100_000) }));
    else truncateSync(name, 100_000);
    expect((await caught(download(id))).reason).to.equal('DEPENDENCY_UNAVAILABLE');
    if (objects) await objects.client.send(new DeleteObjectCommand({ Bucket: objects.bucket, Key: name }));
    else rmSync(name);
    expect((await caught(download(id))).reason).to.equal('DEPENDENCY_UNAVAILABLE');
  });

  it('are not where nothing can be kept: the process is not ready, and says why', async () => {
    const ready = async () => {
      const answer = await fetch(`http://${world.adminAddress}/readyz`);
      return [answer.status, ((await answer.json()) as { checks: Record<string, string> }).checks['executions.artifacts']];
    };
    expect(await ready()).to.deep.equal([200, 'ok']);
    if (!objects) return;
    const { id } = await keep(openingOf(await running()), Buffer.from('kept'));
    objects.link.cut('refused');
    expect((await caught(download(id))).message).to.include('does not answer'); // the next probe looks again
    const [status, why] = await until('the process to be told', async () => ((await ready())[0] === 503 ? ready() : undefined), 15_000);
    expect([status, String(why)]).to.satisfy(([code, text]: [number, string]) => code === 503 && text.includes('does not answer'));
    objects.link.mend();
    await until('it to be ready again', async () => (await ready())[0] === 200);
    const secret = objects.env.MILLRACE_BLOB_S3_SECRET_KEY ?? '';
    const other = await startExecutions({ ...objects.env, MILLRACE_BLOB_S3_SECRET_KEY: `${secret}x` });
    const said = await (await fetch(`http://${other.adminAddress}/readyz`)).text();
    expect([said, other.logged()].some((text) => text.includes(secret))).to.equal(false);
    await other.stop();
    expect(said).to.match(/\(SignatureDoesNotMatch\), bucket .*: check MILLRACE_BLOB_S3_ACCESS_KEY and MILLRACE_BLOB_S3_SECRET_KEY/);
  });
};

for (const store of ['a folder', 'an object store'] as const) describe(`artifacts in ${store}`, casesOf(store));

async function* take<T>(all: AsyncIterable<T>, most: number): AsyncGenerator<T> {
  let count = 0;
  for await (const one of all) {
    if (count++ === most) return;
    yield one;
  }
}

async function* then<T>(all: AsyncIterable<T>, last: T): AsyncGenerator<T> {
  yield* all;
  yield last;
}

describe('an artifact', () => {
  const whole = Artifact.fromPartial({ sizeBytes: 10, sha256: 'ab' });
  const none = { offset: 0, length: 0 };

  it('is sent in the part that the request or the header range asks for', () => {
    const part = (range?: string, ifRange?: string, fields = none) => {
      const { from, length, isAll } = partOf(whole, fields, { range, ifRange });
      return [from, length, isAll];
    };
    expect(part()).to.deep.equal([0, 10, true]);
    expect(part('bytes=0-')).to.deep.equal([0, 10, true]);
    expect(part('bytes=4-')).to.deep.equal([4, 6, false]);
    expect(part('bytes=4-5')).to.deep.equal([4, 2, false]);
    expect(part('bytes=4-99')).to.deep.equal([4, 6, false]);
    expect(part('bytes=-3')).to.deep.equal([7, 3, false]);
    expect(part('bytes=-30')).to.deep.equal([0, 10, true]);
    for (const unheeded of ['bytes=1-2,4-5', 'bytes=-', 'lines=1-2', 'bytes=a-b']) expect(part(unheeded)).to.deep.equal([0, 10, true]);
    expect(part('bytes=4-', '"ab"')).to.deep.equal([4, 6, false]);
    expect(part('bytes=4-', '"cd"')).to.deep.equal([0, 10, true]);
    expect(part('bytes=4-', undefined, { offset: 2, length: 3 })).to.deep.equal([2, 3, false]);
    for (const range of ['bytes=10-', 'bytes=5-4', 'bytes=-0']) expect(() => part(range)).to.throw('10 bytes');
  });

  it('has a name that no header can be broken with', () => {
    expect(dispositionOf('a "b"\\%.csv')).to.equal(`attachment; filename="a _b___.csv"; filename*=UTF-8''a%20%22b%22%5C%25.csv`);
    expect(dispositionOf('çà\r\n.csv')).to.equal(`attachment; filename="____.csv"; filename*=UTF-8''%C3%A7%C3%A0%0D%0A.csv`);
    expect(dispositionOf("it's(1)\ud800")).to.match(/^attachment; filename="[ -~]+"; filename\*=UTF-8''it%27s%281%29%EF%BF%BD$/);
  });
});
