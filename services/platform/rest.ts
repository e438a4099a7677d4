// What REST adds to a call: 201 and where the new resource is, told to the edge by initial metadata.
import type { Method } from './contract.ts';

export const HTTP_CODE = 'x-http-code';

// Where a created resource is found: a POST to a collection made it, and it has an id.
export function createdAt(method: Method, request: Record<string, unknown>, response: { id?: unknown }): string | undefined {
  const [first] = method.bindings;
  if (first?.verb !== 'POST' || first.path.includes(':') || typeof response?.id !== 'string') return undefined;
  const parent = first.path.replace(/\{([a-z_.]+)\}/g, (_, field: string) => encodeURIComponent(String(valueAt(request, field))));
  return `${parent}/${response.id}`;
}

// A field's name as JSON has it.
export const camel = (name: string): string => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

const valueAt = (request: Record<string, unknown>, field: string): unknown =>
  field.split('.').reduce<unknown>((value, part) => (value as Record<string, unknown> | undefined)?.[camel(part)], request);
