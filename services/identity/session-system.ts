// session-system.ts: sessions and their refresh tokens in the database, found by what the caller presents. Its clock alone judges times.
import type { Db, Tx } from '#platform/db.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { type EndReason, GRACE_SECONDS, type Presented } from './session.ts';

export interface Found extends Presented {
  sessionId: string;
  userId: string;
  workspaceId: string;
  expireTime: Date;
}
interface Row {
  session: Buffer;
  user: Buffer;
  workspace: Buffer;
  expire_time: Date;
  end_reason: EndReason | null;
  has_expired: number;
  is_used: number;
  sealed: Buffer | null;
}

const KEEP_DAYS = 7; // ended sessions, so that a late use of their tokens is told as what it is
const PAGE = 1000;

export async function begin(
  tx: Tx,
  session: { id: string; userId: string; workspaceId: string; days: number; digest: Buffer },
): Promise<{ expireTime: Date }> {
  const id = toBytes('session', session.id);
  await tx('sessions').insert({
    id,
    user: toBytes('user', session.userId),
    workspace: toBytes('workspace', session.workspaceId),
    create_time: tx.raw('NOW(6)'),
    expire_time: tx.raw('NOW(6) + INTERVAL ? DAY', [session.days]),
  });
  await tx('refresh_tokens').insert({ hash: session.digest, session: id, create_time: tx.raw('NOW(6)') });
  const { expire_time } = await tx('sessions').where({ id }).first('expire_time');
  return { expireTime: expire_time };
}

export const find = (db: Db, digest: Buffer): Promise<Found | undefined> => read(db, digest, db({ t: 'refresh_tokens' }));

// Nobody else can use a token of the session, or end it, before the transaction ends.
export async function lock(tx: Tx, sessionId: string, digest: Buffer): Promise<Found | undefined> {
  await tx('sessions')
    .where({ id: toBytes('session', sessionId) })
    .forUpdate()
    .first('id'); // prettier-ignore
  return read(tx, digest, tx({ t: 'refresh_tokens' }));
}

async function read(db: Db, digest: Buffer, query: ReturnType<Db>): Promise<Found | undefined> {
  const row: Row | undefined = await query
    .join({ s: 'sessions' }, 's.id', 't.session')
    .leftJoin({ p: 'refresh_replays' }, (on) => void on.on('p.hash', 't.hash').andOn('p.expire_time', '>', db.raw('NOW(6)')))
    .where('t.hash', digest)
    .first([
      ...['t.session', 's.user', 's.workspace', 's.expire_time', 's.end_reason', 'p.sealed'],
      db.raw('s.expire_time <= NOW(6) AS has_expired'),
      db.raw('t.use_time IS NOT NULL AS is_used'),
    ]);
  return (
    row && {
      sessionId: fromBytes('session', row.session),
      userId: fromBytes('user', row.user),
      workspaceId: fromBytes('workspace', row.workspace),
      expireTime: row.expire_time,
      hasExpired: Number(row.has_expired) === 1,
      endReason: row.end_reason ?? undefined,
      isUsed: Number(row.is_used) === 1,
      replay: row.sealed ?? undefined,
    }
  );
}

// Marks the token as used and keeps its successor, readable by its holder for as long as the grace lasts.
export async function rotate(tx: Tx, sessionId: string, tokens: { used: Buffer; successor: Buffer; sealed: Buffer }): Promise<void> {
  const session = toBytes('session', sessionId);
  await tx('refresh_tokens')
    .where({ hash: tokens.used })
    .update({ use_time: tx.raw('NOW(6)') });
  await tx('refresh_tokens').insert({ hash: tokens.successor, session, create_time: tx.raw('NOW(6)') });
  const expire_time = tx.raw('NOW(6) + INTERVAL ? SECOND', [GRACE_SECONDS]);
  await tx('refresh_replays').insert({ hash: tokens.used, sealed: tokens.sealed, expire_time });
}

// False when it had ended before.
export async function end(tx: Tx, sessionId: string, reason: EndReason): Promise<boolean> {
  const live = tx('sessions')
    .where({ id: toBytes('session', sessionId) })
    .whereNull('end_time'); // prettier-ignore
  return (await live.update({ end_time: tx.raw('NOW(6)'), end_reason: reason })) === 1;
}

export const endAll = (tx: Tx, userId: string, reason: EndReason): Promise<number> =>
  tx('sessions')
    .where({ user: toBytes('user', userId) })
    .whereNull('end_time')
    .update({ end_time: tx.raw('NOW(6)'), end_reason: reason }); // prettier-ignore

// Deletes what no longer counts, a bounded piece at a time.
export async function sweep(db: Db): Promise<void> {
  await db('refresh_replays').where('expire_time', '<', db.raw('NOW(6)')).limit(PAGE).delete();
  for (const time of ['expire_time', 'end_time']) {
    const over: { id: Buffer }[] = await db('sessions')
      .where(time, '<', db.raw('NOW(6) - INTERVAL ? DAY', [KEEP_DAYS]))
      .limit(PAGE)
      .select('id');
    const ids = over.map(({ id }) => id);
    await db('refresh_tokens').whereIn('session', ids).delete();
    await db('sessions').whereIn('id', ids).delete();
  }
}
