// Large things in a bucket of an object store that speaks S3. What comes is staged in a folder, and sent once it is whole.
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import type { Blobs, Stage } from './blob.ts';
import { openProbe } from './blob-s3-probe.ts';
import { readObject } from './blob-s3-read.ts';
import { openStore, type Place } from './blob-s3-store.ts';
import { nameOf, openStaging, pieces, readAll, writeAll } from './blob-staging.ts';
import { aborted, unavailable } from './errors.ts';
import { failpoint } from './failpoint.ts';

const MIB = 1024 * 1024;
const PART_BYTES = 8 * MIB;
const MOST_PARTS = 9000; // stores take 10,000
const PARTS_AT_ONCE = 4; // in memory, of all uploads together
const COMPLETE = { answerMs: 120_000, allMs: 300_000 }; // the store puts the parts together

export function openObjects({ folder, ...place }: Place & { folder: string }): Blobs {
  const staging = openStaging(folder);
  const store = openStore(place);
  const inTurn = openTurns(PARTS_AT_ONCE);
  const probe = openProbe(store);

  const size = async (key: string): Promise<number | undefined> =>
    (await store.ask(({ sdk, send, at }) => send(new sdk.HeadObjectCommand(at(nameOf(key))))))?.ContentLength;

  // Parts that somebody sent and did not put together.
  async function abandon(key: string): Promise<void> {
    const { Bucket, Key } = store.at(nameOf(key));
    const found = await store.ask(({ sdk, send }) => send(new sdk.ListMultipartUploadsCommand({ Bucket, Prefix: Key })));
    for (const { Key: of, UploadId } of found?.Uploads ?? [])
      if (of === Key) await store.ask(({ sdk, send }) => send(new sdk.AbortMultipartUploadCommand({ Bucket, Key, UploadId })));
  }

  // The store refuses a body that came damaged.
  const body = async (file: FileHandle, from: number, length: number) => {
    const Body = await readAll(file, from, length);
    return { Body, ContentMD5: createHash('md5').update(Body).digest('base64') };
  };

  async function sendParts(key: string, file: FileHandle, length: number): Promise<void> {
    await abandon(key);
    const at = store.at(nameOf(key));
    const begun = await store.ask(({ sdk, send }) => send(new sdk.CreateMultipartUploadCommand(at)));
    const upload = { ...at, UploadId: begun?.UploadId };
    const partBytes = Math.max(PART_BYTES, Math.ceil(length / MOST_PARTS));
    const Parts: { PartNumber: number; ETag: string | undefined }[] = [];
    for (let from = 0; from < length; from += partBytes) {
      const PartNumber = Parts.length + 1;
      const sent = await inTurn(async () => {
        const part = { ...upload, PartNumber, ...(await body(file, from, Math.min(partBytes, length - from))) };
        return store.ask(({ sdk, send }) => send(new sdk.UploadPartCommand(part)));
      });
      if (!sent) throw unavailable('the object store has lost the parts that it had: they are sent again');
      failpoint('blob.part');
      Parts.push({ PartNumber, ETag: sent.ETag });
    }
    const whole = { ...upload, MultipartUpload: { Parts } };
    // Where the answer to a first try was lost there is no upload any more: the size tells.
    await store.ask(({ sdk, send }) => send(new sdk.CompleteMultipartUploadCommand(whole)), COMPLETE);
  }

  async function sendWhole(key: string, file: FileHandle, length: number): Promise<void> {
    await inTurn(async () => {
      const object = { ...store.at(nameOf(key)), ...(await body(file, 0, length)) };
      await store.ask(({ sdk, send }) => send(new sdk.PutObjectCommand(object)));
    });
  }

  async function keep(key: string, file: FileHandle): Promise<void> {
    const { size: length } = await file.stat();
    await (length > PART_BYTES ? sendParts : sendWhole)(key, file, length);
    const kept = await size(key);
    if (kept !== length) throw unavailable(`the object store has ${kept ?? 'none'} of ${length} bytes: they are sent again`);
    failpoint('blob.sent');
    await staging.remove(key);
  }

  return {
    size,

    // What is kept already comes first: its answer was lost, and whatever is staged here is as much of it or less.
    async stage(key) {
      const kept = await size(key);
      if (kept !== undefined)
        return keptStage(
          kept,
          (length) => readObject(store, nameOf(key), 0, length),
          () => staging.remove(key),
        );
      const { file, close } = await staging.open(key);
      return {
        staged: (await file.stat()).size,
        write: (data, at) => writeAll(file, data, at),
        read: (length) => pieces(file, 0, length),
        keep: () => keep(key, file),
        close,
      };
    },

    read: (key, from, length) => readObject(store, nameOf(key), from, length),

    async delete(key) {
      await staging.remove(key);
      await abandon(key);
      await store.ask(({ sdk, send, at }) => send(new sdk.DeleteObjectCommand(at(nameOf(key)))));
    },

    sweep: staging.sweep,

    async probe() {
      await staging.probe();
      await probe();
    },
  };
}

const keptStage = (kept: number, read: (length: number) => Promise<AsyncIterable<Buffer>>, keep: () => Promise<void>): Stage => ({
  staged: kept,
  async write() {
    throw aborted('it is kept already');
  },
  async *read(length) {
    yield* await read(length);
  },
  keep,
  close: async () => undefined,
});

// So many at once; the others wait for their turn.
function openTurns(most: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let free = most;
  return async (work) => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else free += 1;
    }
  };
}
