// environment-system.ts: builds of environments, which belong to no workspace. Only the database's clock decides who has one.
import type { Db, Tx } from '#platform/db.ts';
import { aborted, notFound } from '#platform/errors.ts';

export interface Claimed {
  digest: Buffer;
  epoch: number;
  requirements: string;
  lineCount: number;
}
export interface Line {
  seq: number;
  time: Date;
  text: string;
}
export interface End {
  error: string;
  problems: readonly { requirement: number; message: string }[];
  packages: readonly string[];
  sizeKib: number;
}
interface Row {
  digest: Buffer;
  epoch: number;
  requirements: string;
  state: string;
  losses: number;
  line_count: number;
}

export const LEASE_MS = 15_000;
const MAX_LOSSES = 3;
const MAX_TEXT = 2000;

const now = (db: Db) => db.raw('utc_timestamp(6)');
const lease = (db: Db) => db.raw('utc_timestamp(6) + interval ? microsecond', [LEASE_MS * 1000]);

// The oldest build that waits, or whose builder was lost. One that has cost too many builders fails; `failed` tells of it.
export async function claim(db: Db, builder: string, platform: string): Promise<{ claimed?: Claimed; failed?: Buffer }> {
  return db.transaction(async (tx) => {
    const row: Row | undefined = await tx('environment_builds')
      .where({ platform })
      .whereIn('state', ['QUEUED', 'BUILDING']) // what has ended is neither read nor locked
      .where((due) =>
        due.where({ state: 'QUEUED' }).orWhere((lost) => lost.where({ state: 'BUILDING' }).where('lease_time', '<=', now(tx))),
      )
      .orderBy('queue_time')
      .first('digest', 'epoch', 'requirements', 'state', 'losses', 'line_count')
      .forUpdate()
      .skipLocked();
    if (!row) return {};
    const isLost = row.state === 'BUILDING';
    const losses = row.losses + (isLost ? 1 : 0);
    if (losses >= MAX_LOSSES) {
      const error = `${MAX_LOSSES} builders were lost while they built it`;
      const lineCount = await append(tx, row, [`failed: ${error}`]);
      const failed = { state: 'FAILED', error, losses, line_count: lineCount, end_time: now(tx), lease_time: null };
      await tx('environment_builds').where({ digest: row.digest }).update(failed);
      return { failed: row.digest };
    }
    const lineCount = isLost ? await append(tx, row, ['the builder was lost: the build begins anew']) : row.line_count;
    const epoch = row.epoch + 1;
    const taken = { state: 'BUILDING', epoch, losses, builder, lease_time: lease(tx), line_count: lineCount };
    await tx('environment_builds').where({ digest: row.digest }).update(taken);
    return { claimed: { digest: row.digest, epoch, requirements: row.requirements, lineCount } };
  });
}

// Keeps the lines that are new and renews the lease.
export async function tell(db: Db, digest: Buffer, epoch: number, firstLine: number, lines: readonly string[]): Promise<void> {
  await db.transaction(async (tx) => {
    const row = await lock(tx, digest);
    if (row.epoch !== epoch || row.state !== 'BUILDING' || firstLine > row.line_count) throw lost();
    const lineCount = await append(tx, row, lines.slice(row.line_count - firstLine));
    await tx('environment_builds')
      .where({ digest })
      .update({ line_count: lineCount, lease_time: lease(tx) });
  });
}

// Ends the build. Saying it again changes nothing.
export async function end(db: Db, digest: Buffer, epoch: number, { error, problems, packages, sizeKib }: End): Promise<void> {
  await db.transaction(async (tx) => {
    const row = await lock(tx, digest);
    if (row.epoch !== epoch) throw lost();
    if (row.state !== 'BUILDING') return;
    await tx('environment_builds')
      .where({ digest })
      .update({
        state: error ? 'FAILED' : 'READY',
        error,
        problems: JSON.stringify(problems.map(({ requirement, message }) => ({ requirement, message }))),
        packages: JSON.stringify(packages),
        size_kib: sizeKib,
        end_time: now(tx),
        lease_time: null,
      });
  });
}

// From a line on. The state is read first: what an ended build has said is all there.
export async function read(
  db: Db,
  digest: Buffer,
  from: number,
  limit: number,
): Promise<{ lines: Line[]; isEnded: boolean; count: number }> {
  const row: { state: string; line_count: number } | undefined = await db('environment_builds')
    .where({ digest })
    .first('state', 'line_count');
  const query = db('environment_build_lines').where({ digest }).where('seq', '>=', from).orderBy('seq').limit(limit);
  const lines: Line[] = await query.select('seq', 'time', 'text');
  const isEnded = row === undefined || row.state === 'READY' || row.state === 'FAILED';
  return { lines, isEnded, count: row?.line_count ?? 0 };
}

export async function state(db: Db, digest: Buffer): Promise<{ state: string; error: string }> {
  const row: { state: string; error: string } | undefined = await db('environment_builds').where({ digest }).first('state', 'error');
  if (!row) throw notFound('environment build', digest.toString('hex'));
  return row;
}

async function lock(tx: Tx, digest: Buffer): Promise<Pick<Row, 'digest' | 'epoch' | 'state' | 'line_count'>> {
  const row = await tx('environment_builds').where({ digest }).forUpdate().first('digest', 'epoch', 'state', 'line_count');
  if (!row) throw lost();
  return row;
}

async function append(tx: Tx, { digest, line_count: from }: Pick<Row, 'digest' | 'line_count'>, lines: readonly string[]): Promise<number> {
  const rows = lines.map((text, index) => ({ digest, seq: from + index, time: now(tx), text: text.slice(0, MAX_TEXT) }));
  if (rows.length > 0) await tx('environment_build_lines').insert(rows);
  return from + rows.length;
}

const lost = () => aborted('the build is not this builder’s any more: drop it');
