// variable.ts: what a variable is and how it may change.
import { Variable } from '#gen/millrace/automations/v1/variable.ts';
import { invalid } from '#platform/errors.ts';

// What an update may name, as in a field mask.
export const UPDATABLE = ['description', 'value'] as const;
export type Updatable = (typeof UPDATABLE)[number];

const MOST_BYTES = 16_384;

export function accept(draft: Variable, creatorId: string, id: string, now: Date): Variable {
  if (draft.name === '') throw invalid('variable.name', 'must be given: letters, digits and _, not beginning with a digit');
  const { name, value } = draft;
  return sound({
    ...Variable.fromPartial({ id, name, creatorId }),
    ...describe(draft),
    value,
    createTime: now,
    updateTime: now,
    version: 1,
  });
}

export function update(variable: Variable, draft: Variable, fields: readonly Updatable[], now: Date): Variable {
  return sound({
    ...variable,
    ...(fields.includes('description') && describe(draft)),
    ...(fields.includes('value') && { value: draft.value }),
    updateTime: now,
    version: variable.version + 1,
  });
}

const describe = ({ description }: Variable) => ({ description: description || undefined });

function sound(variable: Variable): Variable {
  if (variable.value === undefined || variable.value === null) throw invalid('variable.value', 'must be given, and not be null');
  if (Buffer.byteLength(JSON.stringify(variable.value)) > MOST_BYTES)
    throw invalid('variable.value', `must have at most ${MOST_BYTES} bytes of JSON`);
  return variable;
}
