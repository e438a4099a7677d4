// From what a server says to what is kept. What comes from a server came out of a sandbox: nothing of it is believed without a look.
import { AutomationSpec_Isolation } from '#gen/millrace/automations/v1/spec.ts';
import { type Result, Result_Outcome, type Started } from '#gen/millrace/runner/v1/job.ts';
import type { Start, Usage } from '../engine/finish.ts';
import type { Outcome } from '../engine/machine.ts';

const MAX_OUTPUT_BYTES = 1024 * 1024;
const MAX_TYPE = 200;
const MAX_TEXT = 64 * 1024;

export function outcomeOf({ outcome, outputJson, errorType, errorMessage, traceback }: Result): Outcome {
  if (outcome === Result_Outcome.SUCCEEDED) return succeeded(outputJson || 'null');
  const kind = outcome === Result_Outcome.TIMED_OUT ? 'TIMED_OUT' : outcome === Result_Outcome.CANCELLED ? 'CANCELLED' : 'FAILED';
  const type = (errorType || (kind === 'CANCELLED' ? '' : 'Exception')).slice(0, MAX_TYPE);
  return { kind, type, message: errorMessage.slice(0, MAX_TEXT), traceback: traceback.slice(-MAX_TEXT) };
}

function succeeded(output: string): Outcome {
  const fault = (type: string, message: string): Outcome => ({ kind: 'FAILED', type, message, traceback: '' });
  if (Buffer.byteLength(output) > MAX_OUTPUT_BYTES) return fault('OutputTooLarge', 'It returned more than 1 MiB of JSON.');
  try {
    JSON.parse(output);
    return { kind: 'SUCCEEDED', output };
  } catch {
    return fault('OutputInvalid', 'What it returned is not JSON.');
  }
}

// The server's clock, within what the database's says.
export const within = (time: Date | undefined, from: Date, to: Date): Date =>
  new Date(Math.min(Math.max(time?.getTime() || to.getTime(), from.getTime()), to.getTime()));

export const startOf = ({ time, sandboxTier, isolation, limits }: Started, claimTime: Date, now: Date): Start => ({
  time: within(time, claimTime, now),
  tier: sandboxTier,
  isolation: isolation === AutomationSpec_Isolation.REUSED ? 'REUSED' : 'FRESH',
  limits: limits.slice(0, 32).map((limit) => limit.slice(0, 100)),
});

// `lines` is how many are durable: another number than the server's is not written down, so that a reader counts himself.
export function usageOf(result: Result, lines: number): Usage {
  const isWhole = result.logCount === lines && /^[0-9a-f]{64}$/.test(result.logSha256);
  return {
    cpuSeconds: Number.isFinite(result.cpuSeconds) ? result.cpuSeconds : null,
    peakMemoryKib: result.peakMemoryKib,
    logBytes: result.logBytes,
    logCount: isWhole ? lines : null,
    logSha256: isWhole ? result.logSha256 : null,
    droppedBytes: result.droppedBytes,
  };
}
