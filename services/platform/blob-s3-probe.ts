// Whether an object store can be used: everything that is ever asked of it is asked once, then every few seconds only whether it answers.
import { randomBytes } from 'node:crypto';
import type { Store } from './blob-s3-store.ts';
import { type Fault, unavailable } from './errors.ts';
import { pause } from './pause.ts';

const NAME = 'probe'; // an object that stays
const FRESH_MS = 10_000;
const LIMITS = { answerMs: 5000, allMs: 10_000 };
const PATIENCE_MS = 1500; // of whoever asks, for a look that takes longer

// Throws what it found last; the first time, and after a fault, it looks before.
export function openProbe(store: Store): () => Promise<void> {
  let found: { at: number; fault?: Fault } | undefined;
  let looking: Promise<void> | undefined;

  async function look(): Promise<void> {
    const at = performance.now();
    const wasWell = found && !found.fault && found.at > store.failedAt();
    if (!wasWell || !(await isThere(store))) await tryAll(store);
    found = { at };
  }

  return async () => {
    if (found && !found.fault && found.at > store.failedAt() && performance.now() - found.at < FRESH_MS) return;
    looking ??= look()
      .catch((fault: Fault) => {
        found = { at: performance.now(), fault: unavailable(store.explain(fault), fault.retryAfterMs, fault) };
      })
      .finally(() => {
        looking = undefined;
      });
    await Promise.race([looking, pause(PATIENCE_MS)]);
    if (!found) throw unavailable('the object store has not answered yet');
    if (found.fault) throw found.fault;
  };
}

const isThere = async (store: Store): Promise<boolean> =>
  (await store.ask(({ sdk, send, at }) => send(new sdk.HeadObjectCommand(at(NAME))), LIMITS)) !== undefined;

async function tryAll(store: Store): Promise<void> {
  const none = store.at(`${NAME}-${randomBytes(8).toString('hex')}`);
  await store.ask(({ sdk, send, at }) => send(new sdk.PutObjectCommand({ ...at(NAME), Body: Buffer.alloc(0) })), LIMITS);
  if (!(await isThere(store))) throw unavailable('the object store does not have what it has taken');
  await store.ask(({ sdk, send }) => send(new sdk.DeleteObjectCommand(none)), LIMITS);
  await store.ask(({ sdk, send }) => send(new sdk.HeadObjectCommand(none)), LIMITS); // that there is nothing is told to those who may list
  await store.ask(({ sdk, send }) => send(new sdk.ListMultipartUploadsCommand({ Bucket: none.Bucket, Prefix: none.Key })), LIMITS);
}
