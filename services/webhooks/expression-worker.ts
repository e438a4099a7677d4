// expression-worker.ts: evaluates CEL (cel.dev) in a thread of its own, which its owner ends when it takes too long. Nothing is compiled to
// code: expressions are interpreted.
import { parentPort } from 'node:worker_threads';
import { type CelInput, type CelResult, celEnv, isCelError, isCelList, isCelMap, isCelUint, parse, plan } from '@bufbuild/cel';
import { strings } from '@bufbuild/cel/ext';
import { LRUCache } from 'lru-cache';

export interface Job {
  id: number;
  expression: string;
  variables: Record<string, unknown> | undefined; // JSON; undefined: only look whether the expression can be planned
}
export type Outcome = { id: number; value: unknown } | { id: number; error: string };

type Planned = (variables: Record<string, CelInput>) => CelResult;

const MAX_PLANS = 500;
const MAX_DEPTH = 100;
const NAMES = ['headers', 'query', 'body', 'method'];

const environment = celEnv({ funcs: strings });
const plans = new LRUCache<string, Planned>({ max: MAX_PLANS });

function planned(expression: string): Planned {
  const known = plans.get(expression);
  if (known) return known;
  const made = plan(environment, parse(expression)) as Planned;
  plans.set(expression, made);
  return made;
}

// JSON as CEL's values. Maps, because a key such as `constructor` must be no more than a key.
function input(value: unknown): CelInput {
  if (Array.isArray(value)) return value.map(input);
  if (value !== null && typeof value === 'object') return new Map(Object.entries(value).map(([key, one]) => [key, input(one)]));
  return value as CelInput;
}

// What an expression makes, as JSON.
function output(value: unknown, depth = 0): unknown {
  if (depth > MAX_DEPTH) throw new Error(`the outcome is nested more than ${MAX_DEPTH} deep`);
  if (isCelUint(value)) return output(value.value);
  if (typeof value === 'bigint') {
    if (value > Number.MAX_SAFE_INTEGER || value < Number.MIN_SAFE_INTEGER) return String(value);
    return Number(value);
  }
  if (typeof value === 'number' && !Number.isFinite(value)) throw new Error('the outcome holds a number that JSON cannot write');
  if (value === null || ['string', 'boolean', 'number'].includes(typeof value)) return value;
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (isCelList(value)) return [...value].map((one) => output(one, depth + 1));
  if (isCelMap(value)) {
    const made: [string, unknown][] = [];
    for (const [key, one] of value) {
      if (typeof key !== 'string') throw new Error('the outcome holds a map whose keys are not texts');
      made.push([key, output(one, depth + 1)]);
    }
    return Object.fromEntries(made);
  }
  throw new Error('the outcome holds a value that JSON cannot write, such as a time: make a text of it with string()');
}

function answer({ id, expression, variables }: Job): Outcome {
  try {
    const evaluate = planned(expression);
    if (!variables) return { id, value: null };
    const result = evaluate(Object.fromEntries(NAMES.map((name) => [name, input(variables[name])])));
    if (isCelError(result)) return { id, error: result.message };
    return { id, value: output(result) };
  } catch (error) {
    return { id, error: error instanceof Error ? error.message : 'it cannot be evaluated' };
  }
}

parentPort?.on('message', (job: Job) => parentPort?.postMessage(answer(job)));
parentPort?.postMessage('ready');
