// routing.ts: what a hook makes of a request: nothing, or an execution's input.
import type { Hook } from '#gen/millrace/webhooks/v1/hook.ts';
import type { Expressions } from './expressions.ts';
import { bodyOf, pointed, type Request, variablesOf } from './request.ts';

// `input` is JSON of an object.
export type Routed = { state: 'PENDING'; input: string } | { state: 'IGNORED' } | { state: 'FAILED'; error: string };

const MAX_INPUT_BYTES = 1024 * 1024;

export async function route(expressions: Expressions, hook: Pick<Hook, 'filter' | 'input'>, request: Request): Promise<Routed> {
  const evaluate = (expression: string) => expressions.evaluate(expression, variablesOf(request));
  if (hook.filter !== '') {
    const decided = await evaluate(hook.filter);
    if ('error' in decided) return failed(`the filter fails: ${decided.error}`);
    if (typeof decided.value !== 'boolean') return failed('the filter is neither true nor false');
    if (!decided.value) return { state: 'IGNORED' };
  }
  if (hook.input === '') return asInput(bodyOf(request), 'the body');
  if (hook.input.startsWith('/')) return asInput(pointed(bodyOf(request), hook.input), `what stands at ${hook.input} of the body`);
  const made = await evaluate(hook.input);
  return 'error' in made ? failed(`the mapping fails: ${made.error}`) : asInput(made.value, 'what the mapping makes');
}

function asInput(value: unknown, what: string): Routed {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return failed(`${what} is no object`);
  const input = JSON.stringify(value);
  if (Buffer.byteLength(input) > MAX_INPUT_BYTES) return failed(`${what} is larger than 1 MiB`);
  return { state: 'PENDING', input };
}

const failed = (why: string): Routed => ({ state: 'FAILED', error: `MAPPING_FAILED: ${why}` });
