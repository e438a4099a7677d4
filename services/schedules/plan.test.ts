import { expect } from 'chai';
import fc from 'fast-check';
import { ScheduleSpec } from '#gen/millrace/schedules/v1/spec.ts';
import { often, patience } from '../../tests/long.ts';
import { due, first, MOST_TICKS, type Plan, type Planned } from './plan.ts';
import { timesIn, timesOf } from './spec.ts';

const START = new Date('2026-03-28T00:00:00Z');
const DAY = 86_400_000;
const planOf = (fields: object, more: Partial<Plan> = {}): Plan => ({
  id: 'sch_1',
  times: timesOf(ScheduleSpec.fromPartial(fields)),
  jitterMs: 0,
  catchUpMs: 10 * DAY,
  ...more,
});
const next = (plan: Plan, after = START): Planned => first(plan, after) as Planned;

describe('the ticks that are due', () => {
  const some = fc.record({
    crons: fc.constantFrom(['*/17 * * * *'], ['30 2 * * *'], ['0 */2 * * *', '15 * * * *']),
    timeZone: fc.constantFrom('UTC', 'Europe/Berlin', 'America/New_York'),
  });
  // However the scheduler's looks fall, late or often, in one process or many.
  it('are each of them once, whenever one looks', function () {
    this.timeout(patience(20_000));
    fc.assert(
      fc.property(
        some,
        fc.array(fc.integer({ min: 1, max: 12 * 3600 }), { minLength: 1, maxLength: 12 }),
        fc.nat(600_000),
        (fields, pauses, jitterMs) => {
          const plan = planOf(fields, { jitterMs });
          const claimed: number[] = [];
          let pointer: Planned | undefined = next(plan);
          let now = START.getTime();
          for (const pause of pauses) {
            now += pause * 1000;
            while (pointer && pointer.dueTime.getTime() <= now) {
              const found = due(plan, pointer, new Date(now));
              claimed.push(...found.ticks.map(({ tickTime }) => tickTime.getTime()));
              pointer = found.next;
            }
          }
          const all = timesIn(plan.times, new Date(START.getTime() + 1), new Date(now), 2000).map((time) => time.getTime());
          // With jitter the last one or ones may still be to come.
          expect(claimed).to.deep.equal(all.slice(0, claimed.length));
          expect(pointer?.tickTime.getTime()).to.equal(plan.times.next(new Date(claimed.at(-1) ?? START.getTime()))?.getTime());
          expect(pointer?.dueTime.getTime()).to.be.above(now);
        },
      ),
      often('ticks that are due', 60),
    );
  });

  it('are those within the catch-up window; the others are counted as one stretch', () => {
    const plan = planOf({ crons: ['0 * * * *'] }, { catchUpMs: 2 * 3_600_000 });
    const found = due(plan, next(plan), new Date('2026-03-28T10:00:00Z'));
    expect(found.missed).to.deep.include({
      count: 7,
      from: new Date('2026-03-28T01:00:00Z'),
      tickTime: new Date('2026-03-28T07:00:00Z'),
    });
    expect(found.ticks.map(({ tickTime }) => tickTime.getUTCHours())).to.deep.equal([8, 9, 10]);
    expect(found.next?.tickTime).to.deep.equal(new Date('2026-03-28T11:00:00Z'));
  });

  it('are taken a few at a time after a long while', () => {
    const plan = planOf({ crons: ['* * * * * *'] });
    const now = new Date(START.getTime() + 3_600_000);
    const found = due(plan, next(plan), now);
    expect(found.ticks).to.have.length(MOST_TICKS);
    expect(found.next?.dueTime.getTime()).to.equal(START.getTime() + (MOST_TICKS + 1) * 1000);
    const late = due(planOf({ crons: ['* * * * * *'] }, { catchUpMs: 10_000 }), next(plan), now);
    expect(late.ticks).to.deep.equal([]);
    expect(late.missed?.count).to.be.within(1, 1000);
    expect(late.next?.tickTime.getTime()).to.equal(START.getTime() + ((late.missed?.count ?? 0) + 1) * 1000);
  });

  it('end with the spec', () => {
    const plan = planOf({ crons: ['0 * * * *'], endTime: new Date('2026-03-28T02:00:00Z') });
    const found = due(plan, next(plan), new Date('2026-03-29T00:00:00Z'));
    expect(found.ticks).to.have.length(2);
    expect(found.next).to.equal(undefined);
  });
});

describe('jitter', () => {
  it('is the same for the same schedule and time, differs between schedules, and never reaches the next tick', () => {
    const fields = { intervals: [{ every: { seconds: 60 } }] };
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300_000 }), fc.integer({ min: 0, max: 10_000 }), (jitterMs, minute) => {
        const after = new Date(START.getTime() + minute * 60_000);
        const one = next(planOf(fields, { jitterMs }), after);
        expect(next(planOf(fields, { jitterMs }), after)).to.deep.equal(one);
        const late = one.dueTime.getTime() - one.tickTime.getTime();
        expect(late).to.be.within(0, Math.min(jitterMs, 60_000) - 1);
      }),
    );
    const spread = Array.from({ length: 200 }, (_, index) => {
      const { tickTime, dueTime } = next(planOf(fields, { jitterMs: 60_000, id: `sch_${index}` }));
      return Math.floor((dueTime.getTime() - tickTime.getTime()) / 15_000);
    });
    for (const quarter of [0, 1, 2, 3]) expect(spread.filter((one) => one === quarter).length, `quarter ${quarter}`).to.be.within(25, 75);
  });
});
