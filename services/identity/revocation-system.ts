// revocation-system.ts: which tokens count no longer although they have not expired. This table is the truth, everything else its feed.
import type { Db, Tx } from '#platform/db.ts';
import { LONGEST_ACCESS_SECONDS } from './config.ts';

export interface Revocation {
  subject: string; // ses_… or usr_…
  issuedBefore: number; // seconds; tokens issued in that second or earlier are refused
  expire: number; // seconds; no such token can be valid any longer
}

const PAGE = 10_000;

// Until the last token that may be out has expired, whatever its life was set to, and clocks that differ have passed it too.
export const RETAIN_SECONDS = LONGEST_ACCESS_SECONDS + 300;

export async function revoke(tx: Tx, subject: string): Promise<void> {
  await tx.raw(
    `INSERT INTO revocations (subject, issued_before, expire_time, update_time) VALUES (?, NOW(), NOW(6) + INTERVAL ? SECOND, NOW(6))
     ON DUPLICATE KEY UPDATE issued_before = NOW(), expire_time = NOW(6) + INTERVAL ? SECOND, update_time = NOW(6)`,
    [subject, RETAIN_SECONDS, RETAIN_SECONDS],
  );
}

// Those written since, and the database's clock. Writers commit out of order: ask again from a minute before the last answer.
export async function since(db: Db, seconds: number): Promise<{ revocations: Revocation[]; now: number }> {
  const [[{ now }]] = await db.raw('SELECT UNIX_TIMESTAMP() AS now');
  const rows = await db('revocations')
    .where('update_time', '>=', db.raw('FROM_UNIXTIME(?)', [seconds]))
    .where('expire_time', '>', db.raw('NOW(6)'))
    .select('subject', db.raw('UNIX_TIMESTAMP(issued_before) AS issued_before'), db.raw('UNIX_TIMESTAMP(expire_time) AS expire_time'));
  return { now, revocations: rows.map(toRevocation) };
}

const toRevocation = (row: { subject: string; issued_before: string; expire_time: string }): Revocation => ({
  subject: row.subject,
  issuedBefore: Math.floor(Number(row.issued_before)),
  expire: Math.ceil(Number(row.expire_time)),
});

export const sweep = (db: Db): Promise<number> => db('revocations').where('expire_time', '<', db.raw('NOW(6)')).limit(PAGE).delete();
