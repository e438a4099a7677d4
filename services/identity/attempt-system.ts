// attempt-system.ts: failed sign-ins in the database, shared by every process.
import type { Db, Tx } from '#platform/db.ts';
import type { Subject } from './attempt.ts';

const PAGE = 10_000;
const LEFT = 'GREATEST(TIMESTAMPDIFF(MICROSECOND, NOW(6), lock_time), 0) / 1000 AS left_ms';

// For how long any of them is locked still, in milliseconds.
export async function lockedMs(db: Db, subjects: readonly Subject[]): Promise<number> {
  const rows = await db('attempts')
    .whereIn(
      'subject',
      subjects.map(({ key }) => key),
    )
    .select(db.raw(LEFT)); // prettier-ignore
  return Math.max(0, ...rows.map(({ left_ms }: { left_ms: string }) => Number(left_ms)));
}

// One statement that counts and locks, so that simultaneous failures all count. Assignments are made from left to right.
export async function fail(db: Db, { key, allowance }: Subject): Promise<void> {
  const { free, firstLockSeconds, longestLockSeconds, forgetSeconds } = allowance;
  await db.raw(
    `INSERT INTO attempts (subject, failures, lock_time, forget_time) VALUES (?, 1, NOW(6), NOW(6) + INTERVAL ? SECOND)
     ON DUPLICATE KEY UPDATE
       failures = IF(forget_time < NOW(6), 1, failures + 1),
       lock_time = IF(failures < ?, lock_time, NOW(6) + INTERVAL LEAST(?, ? * POW(2, LEAST(failures - ?, 30))) SECOND),
       forget_time = NOW(6) + INTERVAL ? SECOND`,
    [key, forgetSeconds, free, longestLockSeconds, firstLockSeconds, free, forgetSeconds],
  );
}

// The right password forgets the failures, unless they have locked the account while it was being checked: then it comes too late, and
// the time for which it is locked is answered. Else guesses at the same time would all count.
export async function forgive(tx: Tx, { key }: Subject): Promise<number> {
  const row: { left_ms: string } | undefined = await tx('attempts').where({ subject: key }).forUpdate().first(tx.raw(LEFT));
  const left = Number(row?.left_ms ?? 0);
  if (row && left === 0) await tx('attempts').where({ subject: key }).delete();
  return left;
}

export const sweep = (db: Db): Promise<number> => db('attempts').where('forget_time', '<', db.raw('NOW(6)')).limit(PAGE).delete();
