import { expect } from 'chai';
import fc from 'fast-check';
import { ScheduleSpec } from '#gen/millrace/schedules/v1/spec.ts';
import { often, patience } from '../../tests/long.ts';
import { check, timesIn, timesOf } from './spec.ts';

const spec = (fields: object): ScheduleSpec => ScheduleSpec.fromPartial(fields);
const at = (text: string) => new Date(text);
// The next times as they are read on a clock of the zone, with the offset from UTC.
function local(fields: { crons: string[]; timeZone: string }, from: string, count: number): string[] {
  const format = new Intl.DateTimeFormat('sv-SE', {
    timeZone: fields.timeZone,
    month: '2-digit',
    day: '2-digit',
    hour: '2-digit',
    minute: '2-digit',
    timeZoneName: 'shortOffset',
  });
  return timesIn(timesOf(spec(fields)), at(from), undefined, count).map((time) => format.format(time).replace('UTC', 'GMT'));
}
const utc = (fields: object, from: string, count: number) =>
  timesIn(timesOf(spec(fields)), at(from), undefined, count).map((time) => time.toISOString().replace('.000Z', 'Z'));

describe('the times of a spec', () => {
  describe('where clocks are put forward', () => {
    it('a time of day that does not exist comes right after the gap (Berlin, 29 March 2026; New York, 8 March 2026)', () => {
      expect(local({ crons: ['30 2 * * *'], timeZone: 'Europe/Berlin' }, '2026-03-28T00:00:00Z', 3)).to.deep.equal([
        '28/03 02:30 GMT+1',
        '29/03 03:00 GMT+2',
        '30/03 02:30 GMT+2',
      ]);
      expect(local({ crons: ['30 2 * * *'], timeZone: 'America/New_York' }, '2026-03-07T06:00:00Z', 3)).to.deep.equal([
        '07/03 02:30 GMT−5',
        '08/03 03:00 GMT−4',
        '09/03 02:30 GMT−4',
      ]);
    });

    it('one of several hours does not come', () => {
      expect(local({ crons: ['30 2,3 * * *'], timeZone: 'Europe/Berlin' }, '2026-03-28T23:00:00Z', 3)).to.deep.equal([
        '29/03 03:30 GMT+2',
        '30/03 02:30 GMT+2',
        '30/03 03:30 GMT+2',
      ]);
    });

    it('every half hour goes on without a gap', () => {
      for (const [timeZone, from] of [
        ['Europe/Berlin', '2026-03-28T22:00:00Z'],
        ['America/New_York', '2026-03-08T04:00:00Z'],
      ] as const)
        expectEvenly({ crons: ['*/30 * * * *'], timeZone }, from);
    });
  });

  describe('where clocks are put back', () => {
    it('a time of day comes at its first occurrence alone (Berlin, 25 October 2026; New York, 1 November 2026)', () => {
      expect(local({ crons: ['30 2 * * *'], timeZone: 'Europe/Berlin' }, '2026-10-24T00:00:00Z', 3)).to.deep.equal([
        '24/10 02:30 GMT+2',
        '25/10 02:30 GMT+2',
        '26/10 02:30 GMT+1',
      ]);
      expect(local({ crons: ['30 1 * * *'], timeZone: 'America/New_York' }, '2026-10-31T04:00:00Z', 3)).to.deep.equal([
        '31/10 01:30 GMT−4',
        '01/11 01:30 GMT−4',
        '02/11 01:30 GMT−5',
      ]);
    });

    it('one of several hours comes at both', () => {
      expect(local({ crons: ['0 */2 * * *'], timeZone: 'Europe/Berlin' }, '2026-10-24T22:00:00Z', 4)).to.deep.equal([
        '25/10 00:00 GMT+2',
        '25/10 02:00 GMT+2',
        '25/10 02:00 GMT+1',
        '25/10 04:00 GMT+1',
      ]);
    });

    it('every half hour goes on without a gap', () => {
      for (const [timeZone, from] of [
        ['Europe/Berlin', '2026-10-24T22:00:00Z'],
        ['America/New_York', '2026-11-01T04:00:00Z'],
      ] as const)
        expectEvenly({ crons: ['*/30 * * * *'], timeZone }, from);
    });
  });

  function expectEvenly(fields: { crons: string[]; timeZone: string }, from: string) {
    const times = timesIn(timesOf(spec(fields)), at(from), undefined, 12).map((time) => time.getTime());
    expect(times).to.deep.equal(Array.from({ length: 12 }, (_, index) => at(from).getTime() + index * 1_800_000));
  }

  // Two processes, or one before and after a restart, ask from different points: both must find the same times.
  it('do not depend on where one looks from, also around changes of the clock', function () {
    this.timeout(patience(20_000));
    const crons = ['30 2 * * *', '*/20 * * * *', '15 */3 * * *', '0 30 1,2,3 * * *', '*/15 1-3 * * SUN', '0 0 L * *', '@hourly'];
    const places = [
      ['Europe/Berlin', '2026-03-28T20:00:00Z'],
      ['Europe/Berlin', '2026-10-24T20:00:00Z'],
      ['America/New_York', '2026-03-08T02:00:00Z'],
      ['America/New_York', '2026-11-01T01:00:00Z'],
      ['Australia/Lord_Howe', '2026-04-04T10:00:00Z'],
    ] as const;
    fc.assert(
      fc.property(
        fc.constantFrom(...crons),
        fc.constantFrom(...places),
        fc.array(fc.integer({ min: 0, max: 24 * 3600 }), { minLength: 1, maxLength: 8 }),
        (cron, [timeZone, from], offsets) => {
          const times = timesOf(spec({ crons: [cron], timeZone }));
          const listed = timesIn(times, at(from), undefined, 120);
          for (const offset of offsets) {
            const look = new Date(at(from).getTime() + offset * 1000);
            expect(times.next(look)).to.deep.equal(listed.find((time) => time > look));
          }
        },
      ),
      often('times from anywhere', 150),
    );
  });

  it('are those of all its expressions and intervals together, with seconds', () => {
    const fields = { crons: ['15 0 9 * * *', '0 9 * * *'], intervals: [{ every: { seconds: 43_200 }, offset: { seconds: 32_400 } }] };
    expect(utc(fields, '2026-01-01T00:00:00Z', 4)).to.deep.equal([
      '2026-01-01T09:00:00Z',
      '2026-01-01T09:00:15Z',
      '2026-01-01T21:00:00Z',
      '2026-01-02T09:00:00Z',
    ]);
  });

  it('of an interval are multiples from 1970 on, moved by the offset', () => {
    const every = fc.integer({ min: 1, max: 100_000 });
    fc.assert(
      fc.property(
        every,
        fc.double({ min: 0, max: 0.99, noNaN: true }),
        fc.date({ min: at('1980-01-01'), max: at('2100-01-01'), noInvalidDate: true }),
        (seconds, part, from) => {
          const offset = Math.floor(seconds * part);
          const next =
            timesOf(spec({ intervals: [{ every: { seconds }, offset: { seconds: offset } }] }))
              .next(from)
              ?.getTime() ?? 0;
          expect(next)
            .to.be.above(from.getTime())
            .and.at.most(from.getTime() + seconds * 1000);
          expect((next / 1000 - offset) % seconds).to.equal(0);
        },
      ),
    );
  });

  it('leave out excluded days, of one year or of every year, as the zone has them', () => {
    const fields = { crons: ['0 12 * * *'], timeZone: 'Europe/Berlin', excludeDates: ['2026-12-23', '12-25'] };
    expect(utc(fields, '2026-12-22T00:00:00Z', 4)).to.deep.equal([
      '2026-12-22T11:00:00Z',
      '2026-12-24T11:00:00Z',
      '2026-12-26T11:00:00Z',
      '2026-12-27T11:00:00Z',
    ]);
    const early = { crons: ['30 0 * * *'], timeZone: 'Europe/Berlin', excludeDates: ['2026-12-24'] };
    expect(utc(early, '2026-12-23T12:00:00Z', 1), 'the 24th in Berlin is the 23rd in UTC').to.deep.equal(['2026-12-24T23:30:00Z']);
  });

  it('leave out what an excluding expression covers: whole minutes, hours, days and months', () => {
    const nights = { crons: ['*/30 * * * * *'], excludeCrons: ['* 20-23,0-6 * * *'] };
    expect(utc(nights, '2026-01-01T19:59:30Z', 2)).to.deep.equal(['2026-01-01T19:59:30Z', '2026-01-02T07:00:00Z']);
    const summer = { crons: ['* * * * * *'], excludeCrons: ['* * * * 6-8 *', '0 * 0 * * *'] };
    expect(utc(summer, '2026-05-31T23:59:59Z', 2)).to.deep.equal(['2026-05-31T23:59:59Z', '2026-09-01T00:00:01Z']);
    expect(utc({ crons: ['0 * * * *'], excludeCrons: ['0 9 * * *'] }, '2026-01-01T08:00:00Z', 2)).to.deep.equal([
      '2026-01-01T08:00:00Z',
      '2026-01-01T10:00:00Z',
    ]);
  });

  it('never hold one that is excluded, and lose no other', function () {
    this.timeout(patience(20_000));
    const cron = fc.constantFrom('* * * * *', '*/7 * * * *', '0 */5 * * *', '*/20 * * * * *');
    const exclusion = fc.constantFrom('* 2 * * *', '*/2 * * * *', '* * * * SUN', '30 * * * * *', '* * 13 * *');
    fc.assert(
      fc.property(cron, exclusion, fc.integer({ min: 0, max: 300_000 }), (one, other, minutes) => {
        const from = new Date(at('2026-03-20T00:00:00Z').getTime() + minutes * 60_000);
        const plain = timesIn(timesOf(spec({ crons: [one], timeZone: 'Europe/Berlin' })), from, undefined, 60);
        const reckon = () =>
          timesIn(timesOf(spec({ crons: [one], timeZone: 'Europe/Berlin', excludeCrons: [other] })), from, plain.at(-1), 60);
        const excluding = timesOf(spec({ crons: [other.split(' ').length === 5 ? `* ${other}` : other], timeZone: 'Europe/Berlin' }));
        const isExcluded = (time: Date) => excluding.next(new Date(time.getTime() - 1))?.getTime() === time.getTime();
        const left = plain.filter((time) => !isExcluded(time));
        try {
          expect(reckon()).to.deep.equal(left);
        } catch (fault) {
          if (left.length > 0 || !/takes too long/.test(`${fault}`)) throw fault; // those are excluded for ever
        }
      }),
      often('times without those that are excluded', 30),
    );
  });

  it('cost little to reckon, or are not reckoned', () => {
    const times = timesOf(spec({ crons: ['* * * * *', '0 9 * * MON', '0 0 29 2 *'], excludeCrons: ['* 0-6 * * *'] }));
    expect(timesIn(times, at('2026-01-01T00:00:00Z'), undefined, 1000)).to.have.length(1000);
    expect(times.cost(), 'those that are far away are reckoned once').to.be.below(1100);
    const dense = timesOf(spec({ crons: ['* * * * * *'], excludeCrons: ['0-59 0-58 * * * *'] }));
    expect(() => timesIn(dense, at('2026-01-01T00:00:00Z'), undefined, 1000)).to.throw(/takes too long/);
    expect(dense.cost()).to.be.below(15_000);
    const never = timesOf(spec({ crons: ['* * * * *'], excludeCrons: ['* * * * *'] }));
    expect(() => never.next(at('2026-01-01T00:00:00Z'))).to.throw(/takes too long/);
  });

  it('keep within start and end, both included', () => {
    const fields = { crons: ['0 * * * *'], startTime: at('2026-01-01T10:00:00Z'), endTime: at('2026-01-01T12:00:00Z') };
    expect(utc(fields, '2026-01-01T00:00:00Z', 9)).to.deep.equal(['2026-01-01T10:00:00Z', '2026-01-01T11:00:00Z', '2026-01-01T12:00:00Z']);
  });
});

describe('a spec is refused', () => {
  const now = at('2026-06-01T00:00:00Z');
  function refusal(fields: object | undefined, leastGapMs = 1000): string {
    try {
      check(fields && spec(fields), 'schedule.spec', now, leastGapMs);
    } catch (error) {
      return (error as { violations: { field: string; description: string }[] }).violations
        .map((one) => `${one.field} ${one.description}`)
        .join();
    }
    return '';
  }

  it('for what is wrong, where it is, and with what to write instead', () => {
    const said: [object | undefined, RegExp][] = [
      [undefined, /^schedule\.spec names no time: give crons such as "0 9 \* \* MON-FRI"/],
      [{}, /names no time/],
      [{ crons: ['0 9 * * *', '61 * * * *'] }, /^schedule\.spec\.crons\.1 is no cron expression \(.*61\): write it like/],
      [{ crons: ['* * *'] }, /^schedule\.spec\.crons\.0 must have five fields/],
      [{ crons: ['* * * * * * 2027'] }, /must have five fields/],
      [{ crons: ['2026-01-01T00:00:00'] }, /must have five fields/],
      [{ crons: ['@reboot'] }, /must have five fields/],
      [{ crons: ['@daily'], excludeCrons: ['x * * * *'] }, /^schedule\.spec\.excludeCrons\.0 is no cron expression/],
      [{ crons: ['@daily'], timeZone: 'Europe/Berlinn' }, /^schedule\.spec\.timeZone is no time zone: give its IANA name/],
      [{ crons: ['@daily'], timeZone: '+02:00' }, /^schedule\.spec\.timeZone/],
      [{ crons: ['@daily'], excludeDates: ['2026-02-29'] }, /^schedule\.spec\.excludeDates\.0 is no day/],
      [
        { intervals: [{ every: { seconds: 60 }, offset: { seconds: 60 } }] },
        /^schedule\.spec\.intervals\.0\.offset must be less than every/,
      ],
      [{ crons: ['@daily'], startTime: now, endTime: at('2026-05-01') }, /^schedule\.spec\.endTime must not be before startTime/],
      [{ crons: ['@daily', '0 0 30 2 *'] }, /^schedule\.spec\.crons\.1 names a day that never comes/],
      [{ crons: ['@daily'], endTime: at('2026-05-01') }, /has no time left/],
      [{ crons: ['0 12 * * *'], excludeCrons: ['* * * * *'] }, /takes too long to reckon: exclude whole hours or days/],
      [{ crons: ['* * * * * *'], excludeCrons: ['0-59 0-58 * * * *'] }, /takes too long to reckon/],
    ];
    for (const [fields, expected] of said) expect(refusal(fields), JSON.stringify(fields)).to.match(expected);
  });

  it('when its times are closer than the installation allows', () => {
    expect(refusal({ crons: ['* * * * * *'] }, 1000)).to.equal('');
    expect(refusal({ crons: ['*/30 * * * * *'] }, 60_000)).to.match(/here times must be 60 s apart/);
    expect(refusal({ crons: ['0 * * * *'], intervals: [{ every: { seconds: 3600 }, offset: { seconds: 0, nanos: 1e6 } }] })).to.match(
      /1 s apart/,
    );
  });

  it('never when it is right', () => {
    for (const fields of [
      {
        crons: ['@weekly', '0 9 * * MON-FRI', '*/10 0-30 9 L * *', '0 9 * * MON#2'],
        timeZone: 'America/New_York',
        excludeDates: ['02-29'],
      },
      { intervals: [{ every: { seconds: 90 } }] },
    ])
      expect(refusal(fields), JSON.stringify(fields)).to.equal('');
  });
});
