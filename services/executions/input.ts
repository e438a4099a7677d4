// Checks inputs against a revision's JSON Schema, by interpretation: no code is made of what users write. But a schema may make the interpreter
// run for ever; where it could, our call of the interpreter runs under the time limit that node:vm has. That is all vm is used for here.
import { Script } from 'node:vm';
import { type OutputUnit, type Schema, Validator } from '@cfworker/json-schema';
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import { type Fault, reasonsOf, type Violation } from '#platform/errors.ts';

// Answers what is wrong with an input that takes so many bytes as JSON.
export type CheckInput = (input: Record<string, unknown>, bytes: number) => Fault | undefined;

const faults = reasonsOf<keyof typeof ErrorReason>('executions');
const FIELD = 'execution.input';
const LIMIT_MS = 100;
const UNFIT_MS = 10_000;
const SMALL_BYTES = 16 * 1024;
const MAX_PLACES = 50;
// Their cost is not bounded by the sizes of schema and input: regular expressions, comparison of pairs, recursion.
const COSTLY = new Set(['pattern', 'patternProperties', 'uniqueItems', '$ref', '$recursiveRef', '$dynamicRef', 'format']);
// They say that a part is wrong; another error says how.
const WHOLE = new Set([
  'properties',
  'patternProperties',
  'additionalProperties',
  'unevaluatedProperties',
  'items',
  'prefixItems',
  'additionalItems',
  'unevaluatedItems',
  'allOf',
  'anyOf',
  'oneOf',
  '$ref',
  '$recursiveRef',
  'if',
  'dependentSchemas',
  'propertyNames',
]);

// The check of one revision. A schema that has just taken too long is not tried again for a while, so that it cannot hold up the process.
export function checkerOf(schema: Record<string, unknown> | undefined): CheckInput {
  if (!schema) return () => undefined;
  const isCostly = JSON.stringify(schema).length > SMALL_BYTES || mentionsCostly(schema);
  const validators = new Map<boolean, Validator>();
  let unfit: Fault | undefined;
  let unfitUntil = 0;

  function validate(input: unknown, isBig: boolean) {
    const validator = validators.get(isBig) ?? new Validator(schema as Schema, '2020-12', isBig); // of a big input only the first error
    validators.set(isBig, validator);
    return validator.validate(input);
  }

  return (input, bytes) => {
    if (unfit && performance.now() < unfitUntil) return unfit;
    const isBig = bytes > SMALL_BYTES;
    try {
      const { valid, errors } = isCostly || isBig ? within(LIMIT_MS, () => validate(input, isBig)) : validate(input, isBig);
      return valid ? undefined : faults.invalid('INPUT_INVALID', 'the input does not fit the schema of the revision', placesOf(errors));
    } catch (error) {
      if (!isTimeout(error)) return uncheckable(reasonOf(error));
      unfit = uncheckable(`it takes longer than ${LIMIT_MS} ms: mind pattern, uniqueItems and $ref`);
      unfitUntil = performance.now() + UNFIT_MS;
      return unfit;
    }
  };
}

const uncheckable = (why: string): Fault => {
  const description = `cannot be checked with the schema of the revision, ${why}`;
  return faults.invalid('INPUT_INVALID', `the input ${description}`, [{ field: FIELD, description }]);
};

const reasonOf = (error: unknown): string =>
  error instanceof RangeError ? 'it is nested too deeply' : (error as Error).message.slice(0, 200);

const isTimeout = (error: unknown): boolean => (error as { code?: string }).code === 'ERR_SCRIPT_EXECUTION_TIMEOUT';

const mentionsCostly = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.entries(value).some(([key, inner]) => COSTLY.has(key) || mentionsCostly(inner));

// Runs a function of ours under V8's watchdog, which stops regular expressions too. Costs about 75 µs.
const place = globalThis as { millraceCheck?: () => unknown };
const guarded = new Script('millraceCheck()');

function within<T>(timeout: number, run: () => T): T {
  place.millraceCheck = run;
  try {
    return guarded.runInThisContext({ timeout }) as T;
  } finally {
    delete place.millraceCheck;
  }
}

// What is wrong where: `execution.input` and a JSON Pointer (RFC 6901).
export function placesOf(errors: readonly OutputUnit[]): Violation[] {
  const inner = errors.filter((error) => !WHOLE.has(error.keyword));
  return (inner.length > 0 ? inner : errors).slice(0, MAX_PLACES).map(({ instanceLocation, keyword, error }) => {
    const at = FIELD + instanceLocation.slice(1);
    const missing = keyword === 'required' ? /property "(.*)"\.$/s.exec(error)?.[1] : undefined;
    if (missing !== undefined) return { field: `${at}/${missing.replaceAll('~', '~0').replaceAll('/', '~1')}`, description: 'is required' };
    return { field: at, description: keyword === 'false' ? 'is not allowed' : error.slice(0, 300) };
  });
}
