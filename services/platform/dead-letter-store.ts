// The dead letters of a schema: events that its consumers gave up. An empty workspace means any.
import type { Db, Tx } from './db.ts';

export type LetterState = 'DEAD' | 'REDRIVEN' | 'DISCARDED';

export interface LetterKey {
  consumer: string;
  event: Buffer;
}
export interface LetterRow extends LetterKey {
  type: string;
  subject: string;
  workspace: string;
  data_schema: string;
  version: number;
  event_time: Date | null;
  failures: number;
  error: string;
  state: LetterState;
  settle_time: Date | null;
  settler: string | null;
  create_time: Date;
}
export interface LetterFilter {
  workspace: string;
  consumer: string;
  state: LetterState;
  from: Date | undefined;
  to: Date | undefined;
  after: LetterKey | undefined; // of the page before, the last one
  limit: number;
}

const COLUMNS = [
  'consumer',
  'event',
  'type',
  'subject',
  'workspace',
  'data_schema',
  'version',
  'event_time',
  'failures',
  'error',
  'state',
  'settle_time',
  'settler',
  'create_time',
] as const;

// The newest events first.
export async function list(db: Db, { workspace, consumer, state, from, to, after, limit }: LetterFilter): Promise<LetterRow[]> {
  const query = db('dead_letters')
    .select(...COLUMNS)
    .where({ state })
    .orderBy([
      { column: 'event', order: 'desc' },
      { column: 'consumer', order: 'desc' },
    ])
    .limit(limit);
  if (workspace) query.where({ workspace });
  if (consumer) query.where({ consumer });
  if (from) query.where('create_time', '>=', from);
  if (to) query.where('create_time', '<', to);
  if (after) {
    query.where('event', '<=', after.event);
    query.whereNot((one) => one.where('event', after.event).where('consumer', '>=', after.consumer));
  }
  return query;
}

export const find = (db: Db, workspace: string, key: LetterKey): Promise<(LetterRow & { data: Buffer }) | undefined> =>
  db('dead_letters')
    .select(...COLUMNS, 'data')
    .where({ ...key, ...(workspace ? { workspace } : {}) })
    .first();

// Whether it was DEAD until now. Until the transaction ends nobody else can say so.
export async function settle(tx: Db | Tx, key: LetterKey, state: 'REDRIVEN' | 'DISCARDED', settler: string): Promise<boolean> {
  const changed = { state, settler: settler || null, settle_time: tx.raw('NOW(6)') };
  return (
    (await tx('dead_letters')
      .where({ ...key, state: 'DEAD' })
      .update(changed)) === 1
  );
}

export const failedAgain = (db: Db, key: LetterKey, error: string): Promise<unknown> =>
  db('dead_letters')
    .where({ ...key, state: 'DEAD' })
    .update({ error, failures: db.raw('failures + 1') });

export const SETTLED_DAYS = 30;

export const sweep = (db: Db): Promise<unknown> =>
  db('dead_letters')
    .whereNot({ state: 'DEAD' })
    .where('settle_time', '<', db.raw(`NOW(6) - INTERVAL ${SETTLED_DAYS} DAY`))
    .limit(1000)
    .delete();
