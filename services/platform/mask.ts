// Update masks (google.aip.dev/134): which fields an update changes.
import { fault, noFields } from './errors.ts';
import { camel } from './rest.ts';

interface Type {
  fromPartial(partial: object): object;
}

// The fields to change, in snake_case: those that the mask names, else those of `allowed` that are present in the body, a message of that type
// (`optional` fields that are set, others that differ from their default). INVALID_ARGUMENT / NO_FIELDS when there is none, FIELD_INVALID for
// one not allowed.
export function maskedFields<F extends string>(mask: readonly string[] | undefined, body: object, allowed: readonly F[], type: Type): F[] {
  const known = allowed.map(camel);
  const named = (mask ?? []).filter((field) => field !== '');
  const wrong = named.find((field) => !allowed.includes(field as F));
  if (wrong !== undefined) {
    const description = `names ${camel(wrong)}, which cannot be changed; those that can are ${known.join(', ')}`;
    throw fault('INVALID_ARGUMENT', 'FIELD_INVALID', `updateMask ${description}`, {
      violations: [{ field: 'updateMask', description }],
      metadata: { fields: known.join(',') },
    });
  }
  const empty = type.fromPartial({});
  const fields = named.length > 0 ? [...new Set(named as F[])] : allowed.filter((field) => isPresent(camel(field), body, empty));
  if (fields.length === 0) throw noFields(known);
  return fields;
}

// A list or a map is there when something is in it; what has no default when it is set.
function isPresent(field: string, body: object, empty: object): boolean {
  const [value, unset] = [body, empty].map((message) => (message as Record<string, unknown>)[field]);
  if (value === undefined || value === null || value === unset) return false;
  return typeof unset !== 'object' || unset === null || Object.keys(value).length > 0;
}
