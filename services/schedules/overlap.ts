// overlap.ts: what happens at a tick while others of the schedule go on or wait.
import { Schedule_Overlap as Overlap } from '#gen/millrace/schedules/v1/schedule.ts';

// The ticks of a schedule that are not final: their executions go on or are being made, or they wait.
export interface Standing {
  active: number;
  buffered: number;
}
export type Stop = '' | 'CANCEL' | 'KILL'; // nothing, cancelled with grace, killed at once
export interface Verdict {
  act: 'START' | 'BUFFER' | 'SKIP';
  stops: Stop; // what becomes of what is active
  clears: boolean; // what waits is skipped
  reason: string; // why it does not start
}

export const CLEARED = 'a later tick took its place';

export function decide(policy: Overlap, { active, buffered }: Standing, maxBuffered: number): Verdict {
  if (active + buffered === 0) return START;
  switch (policy) {
    case Overlap.ALLOW_ALL:
      return START;
    case Overlap.BUFFER_ONE:
      return buffered > 0 ? skip('another tick waits already') : BUFFER;
    case Overlap.BUFFER_ALL:
      return buffered >= maxBuffered ? skip(`${buffered} ticks wait already, as many as may`) : BUFFER;
    case Overlap.CANCEL_OTHER:
      return { ...BUFFER, stops: 'CANCEL', clears: true };
    case Overlap.TERMINATE_OTHER:
      return { ...START, stops: 'KILL', clears: true };
    default:
      return skip('the tick before it has not ended');
  }
}

const START: Verdict = { act: 'START', stops: '', clears: false, reason: '' };
const BUFFER: Verdict = { ...START, act: 'BUFFER', reason: 'waits for the end of another tick' };
const skip = (reason: string): Verdict => ({ ...START, act: 'SKIP', reason });
