import { expect } from 'chai';
import fc from 'fast-check';
import {
  afterDeadline,
  afterHold,
  afterLoss,
  afterRefusal,
  afterResult,
  type Claimed,
  canMove,
  isFinal,
  MOVES,
  mayHold,
  type Outcome,
  type Policy,
  type Situation,
  type State,
  type Verdict,
} from './machine.ts';

const policy: Policy = {
  maxAttempts: 3,
  initialMs: 1000,
  coefficient: 2,
  maxMs: 60_000,
  nonRetryable: new Set(['ValueError']),
  onLost: 'RETRY',
};
const situation = (overrides: Partial<Situation> = {}): Situation => ({ policy, leftMs: 86_400_000, lost: 0, random: 0.5, ...overrides });
const claimed = (overrides: Partial<Claimed> = {}): Claimed => ({ state: 'RUNNING', attempt: 1, losses: 0, started: true, ...overrides });
const failed = (type: string): Outcome => ({ kind: 'FAILED', type, message: 'm', traceback: 't' });

const policies = fc.record({
  maxAttempts: fc.integer({ min: 1, max: 5 }),
  initialMs: fc.integer({ min: 0, max: 5000 }),
  coefficient: fc.double({ min: 0, max: 10, noNaN: true }),
  maxMs: fc.integer({ min: 0, max: 60_000 }),
  nonRetryable: fc.constantFrom(new Set<string>(), new Set(['E'])),
  onLost: fc.constantFrom('RETRY' as const, 'FAIL' as const),
});
const outcomes: fc.Arbitrary<Outcome> = fc.oneof(
  fc.constant<Outcome>({ kind: 'SUCCEEDED', output: 'null' }),
  fc.record({
    kind: fc.constantFrom('FAILED' as const, 'TIMED_OUT' as const, 'CANCELLED' as const),
    type: fc.constantFrom('E', 'WorkerLost', ''),
    message: fc.string(),
    traceback: fc.string(),
  }),
);
const steps = fc.array(
  fc.oneof(
    fc.constantFrom('claim', 'start', 'due', 'hold', 'release', 'cancel', 'lose', 'refuse', 'deadline', 'expire' as const),
    outcomes.map((outcome) => ({ outcome })),
  ),
  { maxLength: 60 },
);

describe('the state machine', () => {
  it('leaves the allowed moves in no schedule, uses each attempt number once, and never changes a final state', () => {
    fc.assert(
      fc.property(policies, steps, fc.double({ min: 0, max: 1, noNaN: true }), fc.boolean(), (policy, schedule, random, isLate) => {
        let state = 'QUEUED' as State;
        let at: Claimed = claimed({ started: false });
        let lost = 0;
        const used: number[] = [];
        const move = (to: State) => {
          expect(canMove(state, to), `${state} -> ${to}`).to.equal(true);
          state = to;
        };
        const leave = (verdict: Verdict) => {
          if ('attempt' in verdict && verdict.attempt) {
            expect(at.started).to.equal(true);
            used.push(at.attempt);
            if (verdict.attempt === 'LOST') lost += 1;
          } else if (verdict.to !== 'QUEUED') expect(at.started).to.equal(false);
          move(verdict.to);
          if (verdict.to === 'QUEUED') at = claimed({ attempt: at.attempt, losses: verdict.losses, started: false });
          if (verdict.to === 'RETRYING') at = claimed({ attempt: at.attempt + 1, started: false });
        };
        for (const step of schedule) {
          if (isFinal(state)) break;
          const isOut = state === 'RUNNING' || state === 'CANCELLING';
          const now: Situation = { policy, leftMs: isLate ? 0 : 1e9, lost, random };
          if (step === 'claim' && state === 'QUEUED') move('RUNNING');
          else if (step === 'due' && state === 'RETRYING') move('QUEUED');
          else if (step === 'hold' && mayHold(state)) move('PAUSED');
          else if (step === 'release' && state === 'PAUSED') {
            const next = afterHold({ attempt: at.attempt, resumeTime: isLate ? null : new Date(2), now: new Date(1) });
            expect(next.to === 'SCHEDULED').to.equal(!isLate && at.attempt === 1);
            move(next.to);
          } else if (step === 'due' && state === 'SCHEDULED') move('QUEUED');
          else if (step === 'cancel' && state === 'RUNNING') {
            move('CANCELLING');
            at = { ...at, state: 'CANCELLING' };
          } else if (step === 'cancel' && !isOut) move('CANCELLED');
          else if (step === 'expire' && !isOut) move('TIMED_OUT');
          else if (!isOut) continue;
          else if (step === 'start') at = { ...at, started: true };
          else if (step === 'lose') leave(afterLoss(at, now));
          else if (step === 'refuse' && !at.started) leave(afterRefusal(at));
          else if (step === 'deadline') leave(afterDeadline(at, now));
          else if (typeof step === 'object' && at.started) leave(afterResult(at, step.outcome, now));
        }
        expect(new Set(used).size).to.equal(used.length);
        expect(at.attempt).to.be.at.most(policy.maxAttempts);
      }),
      { numRuns: 2000 },
    );
  });

  it('has no move out of a final state', () => {
    for (const state of Object.keys(MOVES) as State[]) if (isFinal(state)) expect(MOVES[state]).to.deep.equal([]);
    expect(Object.keys(MOVES).filter((state) => isFinal(state as State))).to.have.length(5);
  });

  it('may be held while it waits, and goes on where it would stand by then', () => {
    expect((Object.keys(MOVES) as State[]).filter(mayHold)).to.deep.equal(['SCHEDULED', 'QUEUED', 'RETRYING']);
    const [now, at] = [new Date(1000), new Date(2000)];
    expect(afterHold({ attempt: 1, resumeTime: null, now })).to.deep.equal({ to: 'QUEUED' });
    expect(afterHold({ attempt: 2, resumeTime: now, now })).to.deep.equal({ to: 'QUEUED' });
    expect(afterHold({ attempt: 1, resumeTime: at, now })).to.deep.equal({ to: 'SCHEDULED', at });
    expect(afterHold({ attempt: 2, resumeTime: at, now })).to.deep.equal({ to: 'RETRYING', at });
  });

  it('retries with full jitter until the attempts are used up', () => {
    expect(afterResult(claimed(), failed('KeyError'), situation({ random: 1 }))).to.include({ to: 'RETRYING', inMs: 1000 });
    expect(afterResult(claimed({ attempt: 2 }), failed('KeyError'), situation({ random: 0.5 }))).to.include({ to: 'RETRYING', inMs: 1000 });
    expect(afterResult(claimed({ attempt: 3 }), failed('KeyError'), situation())).to.deep.include({
      to: 'FAILED',
      error: { type: 'KeyError', message: 'm', traceback: 't', retryable: false },
    });
    const long = { ...policy, maxAttempts: 100 };
    expect(afterResult(claimed({ attempt: 90 }), failed('KeyError'), situation({ policy: long, random: 1 }))).to.include({ inMs: 60_000 });
  });

  it('does not retry what the policy names, nor beyond schedule-to-close', () => {
    expect(afterResult(claimed(), failed('ValueError'), situation())).to.include({ to: 'FAILED' });
    expect(afterResult(claimed(), failed('KeyError'), situation({ leftMs: 400, random: 0.5 }))).to.include({ to: 'FAILED' });
    const late: Outcome = { kind: 'TIMED_OUT', type: 'StartToCloseTimeout', message: '', traceback: '' };
    expect(afterResult(claimed(), late, situation())).to.include({ to: 'RETRYING', attempt: 'TIMED_OUT' });
    const verdict = afterResult(claimed(), late, situation({ leftMs: 0 }));
    expect(verdict).to.include({ to: 'TIMED_OUT', attempt: 'TIMED_OUT' });
    expect('error' in verdict && verdict.error?.type).to.equal('ScheduleToCloseTimeout');
  });

  it('ends a cancelled one as cancelled unless it succeeded in time', () => {
    const cancelling = claimed({ state: 'CANCELLING' });
    expect(afterResult(cancelling, { kind: 'SUCCEEDED', output: '1' }, situation())).to.include({ to: 'SUCCEEDED', output: '1' });
    expect(afterResult(cancelling, failed('KeyError'), situation())).to.include({ to: 'CANCELLED', attempt: 'CANCELLED' });
    expect(afterRefusal({ ...cancelling, started: false })).to.include({ to: 'CANCELLED', attempt: undefined });
    expect(afterLoss({ ...cancelling, started: false }, situation())).to.include({ to: 'CANCELLED', attempt: undefined });
  });

  it('counts a loss before the start only as a loss, and gives up after twenty', () => {
    expect(afterLoss(claimed({ started: false }), situation())).to.deep.equal({ to: 'QUEUED', losses: 1 });
    expect(afterLoss(claimed({ started: false, losses: 19 }), situation())).to.include({ to: 'FAILED', attempt: undefined });
  });

  it('treats a loss after the start as the automation wants, at most three times', () => {
    expect(afterLoss(claimed(), situation())).to.include({ to: 'RETRYING', attempt: 'LOST' });
    expect(afterLoss(claimed(), situation({ policy: { ...policy, onLost: 'FAIL' } }))).to.include({ to: 'FAILED', attempt: 'LOST' });
    expect(afterLoss(claimed(), situation({ policy: { ...policy, maxAttempts: 50 }, lost: 2 }))).to.include({
      to: 'FAILED',
      attempt: 'LOST',
    });
    expect(afterResult(claimed(), failed('WorkerLost'), situation({ policy: { ...policy, onLost: 'FAIL' } }))).to.include({ to: 'FAILED' });
  });
});
