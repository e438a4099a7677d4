// How much a test does: what a working day allows, or in its long form (MILLRACE_TEST_LONG=1, `make test-long`) what a night allows.
import fc from 'fast-check';

export const isLong = process.env.MILLRACE_TEST_LONG === '1';

const FACTOR = 10; // of the runs of properties
const USUAL_RUNS = 100; // as fast-check has it

const forms = new Map<string, [short: number, long: number]>();

// So much of something, by the form that runs. `what` names the case among all: the driver of `make test` counts and prints them.
export function longer(what: string, short: number, long: number): number {
  forms.set(what, [short, long]);
  return isLong ? long : short;
}

// So many runs of a property: fc.assert(property, often('a page token')).
export const often = (what: string, usual = USUAL_RUNS): { numRuns: number } => ({
  numRuns: longer(`runs of ${what}`, usual, usual * FACTOR),
});

// A time limit that grows with the form.
export const patience = (ms: number): number => (isLong ? ms * FACTOR : ms);

// The cases with two forms that were met so far.
export const met = (): { what: string; short: number; long: number }[] =>
  [...forms].map(([what, [short, long]]) => ({ what, short, long }));

if (isLong) fc.configureGlobal({ numRuns: USUAL_RUNS * FACTOR }); // for properties that name no number
