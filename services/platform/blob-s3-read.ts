// Reads a range of an object as it comes: no faster than the reader takes it, and on from where it was when the connection broke.
import type { Readable } from 'node:stream';
import type { Store } from './blob-s3-store.ts';
import { PIECE_BYTES } from './blob-staging.ts';
import { unavailable } from './errors.ts';
import { pause } from './pause.ts';

const IDLE_MS = 30_000; // for the next bytes
const RESUMES = 3; // in a row, without a byte
const PAUSE_MS = 200;

// Throws where there is nothing of the name.
export async function readObject(store: Store, name: string, from: number, length: number): Promise<AsyncIterable<Buffer>> {
  if (length > 0) return following(store, name, from, length, await begin(store, name, from, length));
  const found = await store.ask(({ sdk, send, at }) => send(new sdk.HeadObjectCommand(at(name))));
  if (!found) throw missing();
  return (async function* () {})();
}

const missing = () => unavailable('the content cannot be read now');

async function begin(store: Store, name: string, from: number, length: number): Promise<Readable> {
  const Range = `bytes=${from}-${from + length - 1}`;
  const found = await store.ask(({ sdk, send, at }) => send(new sdk.GetObjectCommand({ ...at(name), Range })));
  if (!found?.Body) throw missing();
  const body = found.Body as Readable;
  if (found.ContentRange?.startsWith(`bytes ${from}-`) || (from === 0 && !found.ContentRange)) return body;
  body.destroy();
  throw unavailable('the object store does not answer with the range that was asked for');
}

async function* following(store: Store, name: string, from: number, length: number, first: Readable): AsyncGenerator<Buffer> {
  let body: Readable | undefined = first;
  let done = 0;
  try {
    for (let tries = 0; ; ) {
      let isAll = false;
      try {
        body ??= await begin(store, name, from + done, length - done);
        for await (const data of arriving(body)) {
          tries = 0;
          for (let at = 0; at < data.length && done < length; ) {
            const piece = data.subarray(at, at + Math.min(PIECE_BYTES, length - done));
            at += piece.length;
            done += piece.length;
            yield piece;
          }
        }
        isAll = true; // that there is
      } catch (error) {
        if (tries === RESUMES) throw unavailable('the content cannot be read now', 1000, error);
      }
      if (done === length) return;
      if (isAll) throw unavailable('the content is shorter than it was');
      body?.destroy();
      body = undefined;
      tries += 1;
      await pause(tries * PAUSE_MS);
    }
  } finally {
    body?.destroy();
  }
}

// Waits for the store only so long; for the reader as long as it takes.
async function* arriving(body: Readable): AsyncGenerator<Buffer> {
  const parts = body[Symbol.asyncIterator]();
  for (;;) {
    const late = setTimeout(() => body.destroy(new Error('nothing came in time')), IDLE_MS);
    const { done, value } = await parts.next().finally(() => clearTimeout(late));
    if (done) return;
    yield value;
  }
}
