// The event loop's delay: a process that is stuck is not ready.
import { pause } from './pause.ts';

const LIMIT_MS = 1000;
const WAIT_MS = 20;

// One short wait for each question: a monitor of its own would wake an idle process dozens of times a second.
export async function isEventLoopFree(): Promise<void> {
  const begin = performance.now();
  await pause(WAIT_MS);
  const late = performance.now() - begin - WAIT_MS;
  if (late > LIMIT_MS) throw new Error(`the event loop is ${Math.round(late)} ms late`);
}
