// The fault that something is refused with. What is not refused, or fails in another way, fails the test.
import { Fault } from '#platform/errors.ts';

export function refusal(act: () => unknown): Fault {
  try {
    act();
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

export async function refused(call: Promise<unknown>): Promise<Fault> {
  const error = await call.then(
    () => new Error('it was not refused'),
    (error) => error,
  );
  if (!(error instanceof Fault)) throw error;
  return error;
}
