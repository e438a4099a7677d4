// The part of the module that forgets: weeks of history, kept as files before if wanted, and inputs and outputs that nobody wants kept.
import { blobRules, blobSettings, openBlobs } from '#platform/blob.ts';
import { ConfigFault, flag, integer, setting } from '#platform/config.ts';
import type { Pool } from '#platform/db.ts';
import type { Platform } from '#platform/module.ts';
import { every } from '#platform/pause.ts';
import { extendHistory } from './partition-system.ts';
import { archiveWeek } from './retention-archive-system.ts';
import { erasePayloads } from './retention-payloads-system.ts';
import { dropHistory } from './retention-system.ts';

const settings = {
  ...blobSettings,
  weeks: setting(
    'MILLRACE_EXECUTIONS_RETENTION_WEEKS',
    integer(13, 0, 520).refine((weeks) => weeks === 0 || weeks >= 5, 'must be 0, for ever, or at least 5'), // a key of `unique` may name an execution for 30 days
    'how many weeks an execution is kept after its end: 0 for ever, else at least 5; whole weeks are dropped',
  ),
  archives: setting(
    'MILLRACE_EXECUTIONS_ARCHIVE',
    flag(false),
    'whether a week of executions is kept as a file, where artifacts are, before it is dropped',
  ),
};

const HISTORY_MS = 6 * 3_600_000;

interface Deps extends Pick<Platform, 'log' | 'clock'> {
  read: Platform['settings'];
  pool: Pool;
  payloadsMs: number; // how often it is looked for what is to be erased
}

// Answers what stops it.
export function startRetention({ log, clock, read, pool, payloadsMs }: Deps): () => Promise<void> {
  const { weeks, archives, ...where } = read(settings, blobRules);
  if (archives && !where.blobFolder) throw new ConfigFault('MILLRACE_EXECUTIONS_ARCHIVE needs MILLRACE_BLOB_FOLDER, which is not set');
  const blobs = archives ? openBlobs(where) : undefined;
  const stopping = new AbortController();
  const stops = [
    every(payloadsMs, () => erasePayloads(pool), log),
    every(
      HISTORY_MS,
      async () => {
        await extendHistory(pool, clock());
        await dropHistory({
          pool,
          weeks,
          now: clock(),
          log,
          ...(blobs ? { keep: archiveWeek.bind(undefined, blobs, stopping.signal) } : {}),
        });
      },
      log,
    ),
  ];
  return async () => {
    stopping.abort();
    await Promise.all(stops.map((stop) => stop()));
  };
}
