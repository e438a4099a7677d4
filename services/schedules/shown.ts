// shown.ts: a schedule as it is shown by itself, with its next times and last ticks.
import type { Schedule } from '#gen/millrace/schedules/v1/schedule.ts';
import type { Db } from '#platform/db.ts';
import { type Kept, planOf } from './schedule.ts';
import { timesIn } from './spec.ts';
import * as ticks from './store/ticks.ts';

const TIMES = 5;
const TICKS = 5;
const ANY: ticks.Filter = { states: [], backfillId: '' };

export async function shown(db: Db, workspace: string, { schedule, next }: Kept): Promise<Schedule> {
  const recentTicks = await ticks.list(db, workspace, schedule.id, ANY, undefined, TICKS);
  const nextTimes = next ? timesIn(planOf(schedule).times, next.tickTime, undefined, TIMES) : [];
  return { ...schedule, nextTimes, recentTicks };
}
