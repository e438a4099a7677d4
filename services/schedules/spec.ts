// spec.ts: which times a spec names. Crons are read by croner, whose ways at changes of the clock are held by spec.test.ts.
import { Cron } from 'croner';
import type { Duration } from '#gen/google/protobuf/duration.ts';
import type { ScheduleInterval, ScheduleSpec } from '#gen/millrace/schedules/v1/spec.ts';
import { type Fault, invalid } from '#platform/errors.ts';

export interface Times {
  next(after: Date): Date | undefined; // the first time after this one
  cost(): number; // what was reckoned so far, in steps of some 50 microseconds
}
type Source = (after: Date) => Date | null;
interface Exclusion {
  cron: Cron;
  end: Cron; // matches where a stretch that is excluded as a whole may end
}

const FIELDS = /^(\S+\s+){4,5}\S+$/;
const NICKNAME = /^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$/i;
const DEFAULT_ZONE = 'UTC';
const MIDNIGHT = '0 0 0 * * *';
const GAPS_LOOKED_AT = 100;
const MOST_STEPS = 5000; // for one call, or one time: reckoning stops everything else in its process
const MOST_CHECKED = 3000;

export const millis = (duration: Duration | undefined): number =>
  duration ? duration.seconds * 1000 + Math.round(duration.nanos / 1e6) : 0;

// The times of a spec that has passed `check`.
export function timesOf(spec: ScheduleSpec): Times {
  const timezone = zoneOf(spec);
  let steps = 0;
  const sources = [
    ...spec.crons.map((text) => {
      const cron = cronOf(text, timezone);
      return remembered((after) => {
        steps += 1;
        return cron.nextRun(after);
      });
    }),
    ...spec.intervals.map((one) => (after: Date) => nextOf(one, after)),
  ];
  const midnight = cronOf(MIDNIGHT, timezone);
  const day = new Intl.DateTimeFormat('sv-SE', { timeZone: timezone, dateStyle: 'short' });
  const dates = new Set(spec.excludeDates);
  const exclusions = spec.excludeCrons.map((text) => exclusionOf(text, timezone));

  // Where the stretch ends that this time is excluded with; undefined when it is not excluded.
  function excludedUntil(time: Date): Date | null | undefined {
    const local = dates.size > 0 ? day.format(time) : '';
    if (dates.has(local) || dates.has(local.slice(5))) return midnight.nextRun(time);
    const second = new Date(Math.floor(time.getTime() / 1000) * 1000);
    return exclusions.find(({ cron }) => cron.match(second))?.end.nextRun(second);
  }
  return {
    cost: () => steps,
    next(after) {
      const most = steps + MOST_STEPS;
      let from = spec.startTime && spec.startTime > after ? before(spec.startTime) : after;
      for (;;) {
        const found = earliest(sources.map((source) => source(from)));
        if (!found || (spec.endTime && found > spec.endTime)) return undefined;
        const until = excludedUntil(found);
        if (until === undefined) return found;
        if (until === null) return undefined;
        steps += 1;
        if (steps > most) throw tooCostly('spec');
        from = before(until);
      }
    },
  };
}

// What is asked for from ever later times is reckoned again only when it is passed.
function remembered(source: Source): Source {
  let asked = new Date(8.64e15);
  let answered: Date | null = null;
  return (after) => {
    if (after < asked || (answered && answered <= after)) answered = source(after);
    asked = after;
    return answered;
  };
}

// Up to `count` times of a range, both ends included.
export function timesIn(times: Times, from: Date, to: Date | undefined, count: number, field = 'spec', most = MOST_STEPS): Date[] {
  const found: Date[] = [];
  const end = times.cost() + most;
  let next = times.next(before(from));
  while (next && found.length < count && !(to && next > to)) {
    found.push(next);
    if (times.cost() > end) throw tooCostly(field);
    next = times.next(next);
  }
  return found;
}

const tooCostly = (field: string): Fault =>
  invalid(field, 'takes too long to reckon: exclude whole hours or days, such as "* 0-6 * * *", not many single times; or ask for fewer');

// Refuses a spec that cannot be used; `field` is where it stands in the request.
export function check(spec: ScheduleSpec | undefined, field: string, now: Date, leastGapMs: number): void {
  if (!spec || (spec.crons.length === 0 && spec.intervals.length === 0))
    throw invalid(field, 'names no time: give crons such as "0 9 * * MON-FRI", or intervals such as {"every": "900s"}');
  const timezone = zoneOf(spec);
  if (!isZone(timezone)) throw invalid(`${field}.timeZone`, 'is no time zone: give its IANA name, such as Europe/Berlin or UTC');
  for (const [index, text] of spec.crons.entries()) checkCron(text, `${field}.crons.${index}`, now);
  for (const [index, text] of spec.excludeCrons.entries()) checkCron(text, `${field}.excludeCrons.${index}`, now);
  for (const [index, interval] of spec.intervals.entries()) {
    if (millis(interval.offset) >= millis(interval.every)) throw invalid(`${field}.intervals.${index}.offset`, 'must be less than every');
  }
  for (const [index, date] of spec.excludeDates.entries()) {
    if (!isDate(date)) throw invalid(`${field}.excludeDates.${index}`, 'is no day: give one such as 2026-12-24, or 12-24 for every year');
  }
  if (spec.startTime && spec.endTime && spec.endTime < spec.startTime) throw invalid(`${field}.endTime`, 'must not be before startTime');
  checkTimes(spec, field, now, leastGapMs);
}

function checkTimes(spec: ScheduleSpec, field: string, now: Date, leastGapMs: number): void {
  const times = timesOf(spec);
  const [first, ...others] = timesIn(times, now, undefined, GAPS_LOOKED_AT, field, MOST_CHECKED);
  if (!first) throw invalid(field, 'has no time left from now on: look at its expressions, exclusions and endTime');
  let last = first;
  for (const time of others) {
    if (time.getTime() - last.getTime() < leastGapMs)
      throw invalid(field, `ticks at ${last.toISOString()} and ${time.toISOString()}: here times must be ${leastGapMs / 1000} s apart`);
    last = time;
  }
}

function checkCron(text: string, field: string, now: Date): void {
  if (!FIELDS.test(text.trim()) && !NICKNAME.test(text.trim()))
    throw invalid(field, 'must have five fields (minute hour day month weekday), or six with seconds first, such as "0 30 9 * * MON-FRI"');
  let next: Date | null;
  try {
    next = cronOf(text, DEFAULT_ZONE).nextRun(now);
  } catch (error) {
    throw badCron(field, error);
  }
  if (!next) throw invalid(field, 'names a day that never comes');
}

function badCron(field: string, error: unknown): Fault {
  const what = error instanceof Error ? error.message.replace(/^Cron\w+: /, '') : 'unreadable';
  return invalid(field, `is no cron expression (${what}): write it like "0 30 9 * * MON-FRI"`);
}

// Paused, without a job: croner only reads and reckons here.
const cronOf = (text: string, timezone: string): Cron =>
  new Cron(text.trim(), { timezone, paused: true, mode: NICKNAME.test(text.trim()) ? 'auto' : '5-or-6-parts' });

// An expression that covers whole minutes, hours or days is left at their end, so that a long exclusion costs few steps.
function exclusionOf(text: string, timezone: string): Exclusion {
  const fields = text.trim().split(/\s+/);
  const [second, minute, hour] = fields.length === 5 ? ['*', ...fields] : fields;
  const whole = (...parts: (string | undefined)[]) => parts.every((part) => part === '*');
  let end = '* * * * * *';
  if (whole(second)) end = '0 * * * * *';
  if (whole(second, minute)) end = '0 0 * * * *';
  if (whole(second, minute, hour)) end = MIDNIGHT;
  return { cron: cronOf(fields.length === 5 ? `* ${fields.join(' ')}` : text, timezone), end: cronOf(end, timezone) };
}

function nextOf(interval: ScheduleInterval, after: Date): Date {
  const every = millis(interval.every);
  const offset = millis(interval.offset);
  return new Date(offset + (Math.floor((after.getTime() - offset) / every) + 1) * every);
}

const zoneOf = (spec: ScheduleSpec): string => spec.timeZone || DEFAULT_ZONE;

// Offsets such as +02:00 are no zones: they know no changes of the clock.
function isZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return /^[A-Za-z]/.test(name);
  } catch {
    return false;
  }
}

function isDate(text: string): boolean {
  const whole = text.length === 5 ? `2000-${text}` : text; // a leap year
  const date = new Date(`${whole}T00:00:00Z`);
  return !Number.isNaN(date.getTime()) && date.toISOString().startsWith(whole);
}

const before = (time: Date): Date => new Date(time.getTime() - 1);

const earliest = (times: readonly (Date | null)[]): Date | undefined =>
  times.reduce<Date | undefined>((least, time) => (time && (!least || time < least) ? time : least), undefined);
