// Holds executions that wait, and lets them go on. Lock order: limits, slots, waiting, ready, timers, executions.
import { type Entrant, enter } from './enter.ts';
import { findPlaces, lockPlaces, slotsOf } from './leave.ts';
import { afterHold } from './machine.ts';
import { giveOn, lockLimits } from './slots.ts';
import { type Connection, format, rows } from './sql.ts';

export interface Moved {
  lanes: Set<number>; // to ring after the commit
  isTimed: boolean; // something is due later
}
interface Held extends Entrant {
  due: string;
  resume_time: Date | null;
  now: Date;
}
// How long it may wait when it goes on.
export interface Patience {
  toClose: Date; // schedule-to-close
  toStartMs: number | undefined; // schedule-to-start: begins anew
}

const COLUMNS = 'execution, lane, priority, limit_key, attempt, losses';

// Out of ready, waiting or timers into the keeping of a person, until schedule-to-close. Undefined: it does not stand there any more.
export async function hold(connection: Connection, execution: Buffer, toClose: Date): Promise<Moved | undefined> {
  const [place] = await findPlaces(connection, [execution]);
  if (!place) return undefined;
  const limits = await lockLimits(connection, slotsOf([place]).keys());
  const [held] = await lockPlaces(connection, [place], () => false);
  if (!held) return undefined;
  const given = await giveOn(connection, limits, slotsOf([held]));
  const from = held.place === 'timers' ? 'due_time' : 'NULL';
  const copy = `INSERT INTO timers (due_time, kind, ${COLUMNS}, expire_time, resume_time)
    SELECT ?, 'PAUSE', ${COLUMNS}, ?, ${from} FROM ${held.place} WHERE ${held.where}`;
  await rows(connection, [
    format(copy, [toClose, toClose]),
    `DELETE FROM ${held.place} WHERE ${held.where}`,
    ...given.statements,
    format("UPDATE executions SET state = 'PAUSED' WHERE id = ?", [execution]),
  ]);
  return { lanes: new Set(given.lanes), isTimed: false };
}

// Back to where it would stand by now. Undefined: nobody holds it.
export async function release(connection: Connection, execution: Buffer, { toClose, toStartMs }: Patience): Promise<Moved | undefined> {
  const select = `SELECT ${COLUMNS}, expire_time, resume_time, CAST(due_time AS CHAR) AS due, NOW(6) AS now FROM timers
    WHERE execution = ? AND kind = 'PAUSE'`;
  const [[seen]] = await rows<[Held[]]>(connection, [format(select, [execution])]);
  if (!seen) return undefined;
  const limits = await lockLimits(connection, seen.limit_key === null ? [] : [seen.limit_key]);
  const where = format("due_time = ? AND kind = 'PAUSE' AND execution = ?", [seen.due, execution]);
  const [[held]] = await rows<[Held[]]>(connection, [`${format(select, [execution])} FOR UPDATE`]);
  if (held?.due !== seen.due) return undefined;
  const next = afterHold({ attempt: held.attempt, resumeTime: held.resume_time, now: held.now });
  const begin = next.to === 'QUEUED' ? held.now : next.at;
  const isFirst = held.attempt === 1 && toStartMs !== undefined;
  const expireTime = isFirst ? new Date(Math.min(toClose.getTime(), begin.getTime() + toStartMs)) : toClose;
  const kind = next.to === 'RETRYING' ? 'RETRY' : 'START';
  const moves =
    next.to === 'QUEUED'
      ? [`DELETE FROM timers WHERE ${where}`, ...enter(limits, [{ ...held, expire_time: expireTime }])]
      : [
          format(`UPDATE timers SET kind = ?, due_time = resume_time, resume_time = NULL, expire_time = ? WHERE ${where}`, [
            kind,
            expireTime,
          ]),
        ];
  await rows(connection, [...moves, format('UPDATE executions SET state = ? WHERE id = ?', [next.to, execution])]);
  return next.to === 'QUEUED' ? { lanes: new Set([held.lane]), isTimed: false } : { lanes: new Set(), isTimed: true };
}
