import { randomBytes } from 'node:crypto';
import { globSync, mkdtempSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { CreateMultipartUploadCommand } from '@aws-sdk/client-s3';
import { expect } from 'chai';
import { freePort } from '../../deploy/local/ports.ts';
import { isOwnStore, type Objects, startObjects } from '../../tests/objects.ts';
import { until } from '../../tests/world.ts';
import { type Blobs, blobRules, blobSettings, openBlobs } from './blob.ts';
import { readSettings } from './config.ts';
import type { Fault } from './errors.ts';

const MIB = 1024 * 1024;
const DAY_MS = 24 * 3_600_000;
const opened = (env: Record<string, string>): Blobs => openBlobs(readSettings(blobSettings, env, blobRules));

async function put(blobs: Blobs, key: string, content: Buffer): Promise<void> {
  const stage = await blobs.stage(key);
  try {
    await stage.write(content, 0);
    await stage.keep();
  } finally {
    await stage.close();
  }
}
async function get(blobs: Blobs, key: string, from: number, length: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of await blobs.read(key, from, length)) pieces.push(piece);
  return Buffer.concat(pieces);
}
const caught = (work: Promise<unknown>): Promise<Fault> =>
  work.then(
    () => expect.fail('it was not refused'),
    (error) => error,
  );

for (const kind of ['a folder', 'an object store'] as const) {
  describe(`large things in ${kind}`, () => {
    let folder: string;
    let objects: Objects | undefined;
    let env: Record<string, string>;
    let blobs: Blobs;
    before(async () => {
      folder = mkdtempSync(join(tmpdir(), 'millrace-blobs-'));
      objects = kind === 'a folder' ? undefined : await startObjects();
      env = { MILLRACE_BLOB_FOLDER: folder, ...objects?.env };
      blobs = opened(env);
    });
    after(async () => {
      await objects?.stop();
      rmSync(folder, { recursive: true, force: true });
    });
    const staged = () => globSync('*', { cwd: join(folder, 'staged') });
    const kept = async (): Promise<string[]> =>
      objects ? (await objects.names()).filter((name) => name.includes('/kept/')) : globSync('kept/*/*', { cwd: folder });

    it('can be kept there, as a probe finds', async () => {
      await blobs.probe();
      await blobs.probe();
      expect(globSync('probe-*', { cwd: folder })).to.deep.equal([]);
    });

    it('are read as they were kept, whole and in part, whatever their size', async () => {
      for (const size of [0, 1, 64 * 1024 + 1, 8 * MIB, 20 * MIB]) {
        const content = randomBytes(size);
        const key = `size_${size}`;
        expect(await blobs.size(key)).to.equal(undefined);
        await put(blobs, key, content);
        expect(await blobs.size(key)).to.equal(size);
        expect((await get(blobs, key, 0, size)).equals(content), `${size} bytes`).to.equal(true);
        if (size < MIB) continue;
        expect((await get(blobs, key, MIB - 1, 200_000)).equals(content.subarray(MIB - 1, MIB + 199_999))).to.equal(true);
        expect((await get(blobs, key, size - 1, 1)).equals(content.subarray(-1))).to.equal(true);
        expect((await caught(get(blobs, key, size - 1, 2))).reason, 'more than there is').to.equal('DEPENDENCY_UNAVAILABLE');
      }
      expect(staged()).to.deep.equal([]);
      expect((await caught(get(blobs, 'never', 0, 1))).reason).to.equal('DEPENDENCY_UNAVAILABLE');
      expect((await caught(get(blobs, 'never', 0, 0))).reason).to.equal('DEPENDENCY_UNAVAILABLE');
    });

    it('go on where they were, in another process', async () => {
      const content = randomBytes(300_000);
      const first = await blobs.stage('resumed');
      expect(first.staged).to.equal(0);
      await first.write(content.subarray(0, 200_000), 0);
      const second = await opened(env).stage('resumed');
      expect(second.staged).to.equal(200_000);
      const before: Buffer[] = [];
      for await (const piece of second.read(200_000)) before.push(piece);
      expect(Buffer.concat(before).equals(content.subarray(0, 200_000))).to.equal(true);
      await second.write(content.subarray(200_000), 200_000);
      await second.keep();
      await first.close();
      await second.close();
      expect((await get(blobs, 'resumed', 0, 300_000)).equals(content)).to.equal(true);
    });

    it('are kept once more when nobody knows that they were', async () => {
      const content = randomBytes(100_000);
      await put(blobs, 'again', content);
      const stage = await opened(env).stage('again');
      expect(stage.staged).to.equal(content.length);
      const before: Buffer[] = [];
      for await (const piece of stage.read(stage.staged)) before.push(piece);
      expect(Buffer.concat(before).equals(content)).to.equal(true);
      await stage.keep();
      await stage.close();
      expect((await get(blobs, 'again', 0, content.length)).equals(content)).to.equal(true);
      expect(staged()).to.deep.equal([]);
    });

    it('are gone once they are deleted, kept or staged, and again', async () => {
      await put(blobs, 'deleted', Buffer.from('kept'));
      const stage = await blobs.stage('left');
      await stage.write(Buffer.from('staged'), 0);
      await stage.close();
      for (const key of ['deleted', 'left', 'never', 'deleted']) await blobs.delete(key);
      expect(await blobs.size('deleted')).to.equal(undefined);
      expect((await kept()).filter((name) => /deleted|left/.test(name))).to.deep.equal([]);
      expect(staged()).to.deep.equal([]);
    });

    it('are not left staged for more than a day, but for those that are open', async () => {
      for (const key of ['old', 'fresh']) {
        const stage = await blobs.stage(key);
        await stage.close();
      }
      const open = await blobs.stage('open');
      const longAgo = new Date(Date.now() - DAY_MS - 1000);
      for (const key of ['old', 'open']) utimesSync(join(folder, 'staged', key), longAgo, longAgo);
      writeFileSync(join(folder, 'staged', 'Somebody Else.txt'), '');
      utimesSync(join(folder, 'staged', 'Somebody Else.txt'), longAgo, longAgo);
      await blobs.sweep();
      await opened(env).sweep(); // by another process that shares the folder
      expect(staged().sort()).to.deep.equal(['Somebody Else.txt', 'fresh', 'open']);
      expect(Date.now() - statSync(join(folder, 'staged', 'open')).mtimeMs).to.be.below(DAY_MS / 2);
      await open.close();
    });
  });
}

describe('an object store', () => {
  let folder: string;
  let objects: Objects;
  let env: Record<string, string>;
  let blobs: Blobs;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'millrace-blobs-'));
    objects = await startObjects();
    env = { MILLRACE_BLOB_FOLDER: folder, ...objects.env };
    blobs = opened(env);
  });
  after(async () => {
    await objects.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  afterEach(() => objects.link.mend());
  const staged = () => globSync('*', { cwd: join(folder, 'staged') });

  it('has the names of the folder, so that a plain copy moves everything, there and back', async () => {
    const [before, after] = [join(folder, 'before'), join(folder, 'after')];
    const content = randomBytes(100_000);
    await put(openBlobs({ blobFolder: before }), 'moved', content);
    await objects.copy(join(before, 'kept'), 'store:some/where/kept');
    expect((await get(blobs, 'moved', 0, content.length)).equals(content)).to.equal(true);
    await put(blobs, 'moved_back', content);
    await objects.copy('store:some/where/kept', join(after, 'kept'));
    expect((await get(openBlobs({ blobFolder: after }), 'moved_back', 0, content.length)).equals(content)).to.equal(true);
  });

  it('that is away is waited for only so long, and takes what is staged when it is back', async () => {
    const content = randomBytes(100_000);
    const stage = await blobs.stage('away');
    await stage.write(content, 0);
    await put(blobs, 'there', content);
    await blobs.probe();
    for (const how of isOwnStore ? ['down', 'cut'] : ['cut']) {
      if (how === 'down') await objects.down();
      else objects.link.cut('refused');
      const works = [stage.keep(), blobs.stage('other'), blobs.size('there'), get(blobs, 'there', 0, 9), blobs.delete('there')];
      for (const { reason, message } of await Promise.all(works.map(caught))) {
        expect(reason).to.equal('DEPENDENCY_UNAVAILABLE');
        expect(message).to.match(/^the object store does not answer \(\w+\)$/);
      }
      expect((await caught(blobs.probe())).message).to.match(/does not answer \(\w+\), bucket test-\w+ at 127\.0\.0\.1:\d+: is it up/);
      if (how === 'down') await objects.up();
      else objects.link.mend();
      await blobs.probe();
      expect(await blobs.size('away')).to.equal(undefined);
      expect(staged()).to.include('away');
    }
    const nowhere = opened({ ...env, MILLRACE_BLOB_S3_ENDPOINT: `http://127.0.0.1:${await freePort()}` });
    expect((await caught(nowhere.probe())).message).to.match(
      /does not answer \(ECONNREFUSED\), bucket .* at 127.*: is it up, and MILLRACE_BLOB_S3_ENDPOINT right/,
    );
    await stage.keep();
    await stage.close();
    await blobs.probe();
    expect((await get(blobs, 'away', 0, content.length)).equals(content)).to.equal(true);
    expect(staged()).not.to.include('away');
  });

  it('may be slow', async () => {
    const content = randomBytes(100_000);
    await blobs.probe();
    objects.link.cut('silent');
    const kept = put(blobs, 'slow', content);
    const probed = caught(opened(env).probe());
    expect((await probed).message).to.equal('the object store has not answered yet');
    await blobs.probe(); // it was well a moment ago
    objects.link.mend();
    await kept;
    expect((await get(blobs, 'slow', 0, content.length)).equals(content)).to.equal(true);
  });

  it('takes nothing that came damaged', async () => {
    const content = Buffer.concat([randomBytes(100_000), Buffer.from('mark')]);
    objects.link.change((data) => Buffer.from(data.toString('latin1').replace('mark', 'MARK'), 'latin1'));
    const fault = await caught(put(blobs, 'damaged', content));
    expect([fault.reason, fault.message.includes('BadDigest')], fault.message).to.deep.equal(['DEPENDENCY_UNAVAILABLE', true]);
    expect(await blobs.size('damaged')).to.equal(undefined);
    const large = await caught(put(blobs, 'damaged_part', Buffer.concat([randomBytes(9 * MIB), Buffer.from('mark')])));
    expect(large.reason, large.message).to.equal('DEPENDENCY_UNAVAILABLE');
    objects.link.change(undefined);
    expect(await blobs.size('damaged_part')).to.equal(undefined);
    await blobs.delete('damaged_part');
    expect(await objects.unfinished()).to.deep.equal([]);
    await put(blobs, 'damaged', content);
    expect((await get(blobs, 'damaged', 0, content.length)).equals(content)).to.equal(true);
  });

  it('keeps no parts that nobody put together', async () => {
    const name = (key: string) => ({ Bucket: objects.bucket, Key: `some/where/kept/${key.slice(-2)}/${key}` });
    const begin = (key: string) => objects.client.send(new CreateMultipartUploadCommand(name(key)));
    for (const key of ['parts', 'parts', 'parts_parts']) await begin(key);
    expect(await objects.unfinished()).to.have.length(3);
    const content = randomBytes(17 * MIB);
    await put(blobs, 'parts', content);
    expect(await objects.unfinished()).to.deep.equal([name('parts_parts').Key]);
    await blobs.delete('parts_parts');
    expect(await objects.unfinished()).to.deep.equal([]);
  });

  it('is read on from where the connection broke, and not at all once the reader has gone', async () => {
    const content = randomBytes(20 * MIB);
    await put(blobs, 'broken', content);
    const pieces: Buffer[] = [];
    for await (const piece of await blobs.read('broken', 5, content.length - 5)) {
      pieces.push(piece);
      if (pieces.length % 100 !== 0) continue;
      objects.link.cut('refused');
      setTimeout(objects.link.mend, 100);
    }
    expect(Buffer.concat(pieces).equals(content.subarray(5))).to.equal(true);

    const before = objects.link.open();
    for await (const _ of await blobs.read('broken', 0, content.length)) {
      expect(objects.link.open(), 'that it is read by').to.be.above(0);
      break;
    }
    await until('the connection to be closed', () => objects.link.open() < Math.max(before, 1));
  });

  it('is read no faster than the reader takes it', async () => {
    await put(blobs, 'other', randomBytes(8 * MIB));
    const passed = objects.link.passed();
    for await (const _ of await blobs.read('broken', 0, 20 * MIB)) {
      await get(blobs, 'other', 0, 8 * MIB); // meanwhile the first one could come whole
      break;
    }
    expect(objects.link.passed() - passed).to.be.within(8 * MIB, 24 * MIB); // some is on its way
  });

  it('that refuses says what to do, and never the secret', async () => {
    const wrong = 'wrong-and-never-to-be-told';
    const said = async (more: Record<string, string>): Promise<string> => {
      const fault = await caught(opened({ ...env, ...more }).probe());
      expect(fault.reason).to.equal('DEPENDENCY_UNAVAILABLE');
      for (const secret of [wrong, objects.env.MILLRACE_BLOB_S3_SECRET_KEY ?? ''])
        expect(inspect(fault, { depth: 20, showHidden: true })).not.to.include(secret);
      return fault.message;
    };
    expect(await said({ MILLRACE_BLOB_S3_SECRET_KEY: wrong })).to.match(
      /\(SignatureDoesNotMatch\), bucket .*: check MILLRACE_BLOB_S3_ACCESS_KEY and/,
    );
    expect(await said({ MILLRACE_BLOB_S3_ACCESS_KEY: 'nobody' })).to.match(
      /\(InvalidAccessKeyId\), bucket .*: check MILLRACE_BLOB_S3_ACCESS_KEY and/,
    );
    if (isOwnStore)
      expect(await said({ MILLRACE_BLOB_S3_BUCKET: 'no-such-bucket' })).to.match(
        /\(NoSuchBucket\), bucket no-such-bucket at .*: make it, or/,
      );
  });

  it('is configured whole or not at all, and every fault is told', () => {
    const told = (more: Record<string, string>): string[] => {
      try {
        readSettings(blobSettings, more, blobRules);
        return [];
      } catch (error) {
        return (error as Error).message
          .split('\n  ')
          .slice(1)
          .map((line) => line.replace(/ \(.*/s, ''));
      }
    };
    const S3 = 'MILLRACE_BLOB_S3';
    expect(told(env)).to.deep.equal([]);
    expect(told({ [`${S3}_ACCESS_KEY`]: 'id', [`${S3}_ENDPOINT`]: 'store:9000', [`${S3}_PATH_STYLE`]: 'yes' })).to.deep.equal([
      `${S3}_ENDPOINT: must be http://host:port or https://host`,
      `${S3}_PATH_STYLE: must be true or false`,
      `${S3}_BUCKET: is not set, but these are: ${S3}_ENDPOINT, ${S3}_ACCESS_KEY, ${S3}_PATH_STYLE`,
      `${S3}_SECRET_KEY: is not set, but ${S3}_ACCESS_KEY is: give both, or none`,
    ]);
    expect(
      told({ [`${S3}_BUCKET`]: 'bucket', [`${S3}_SECRET_KEY_FILE`]: 'package.json', [`${S3}_ENDPOINT`]: 'http://id:key@host' }),
    ).to.deep.equal([
      `${S3}_ENDPOINT: must hold no key and no query`,
      `MILLRACE_BLOB_FOLDER: is not set, but ${S3}_BUCKET needs it: what is on its way to the bucket stands there`,
      `${S3}_ACCESS_KEY: is not set, but ${S3}_SECRET_KEY is: give both, or none`,
    ]);
  });
});
