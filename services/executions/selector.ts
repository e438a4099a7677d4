// Selectors: the labels that an automation server must have to run an execution. Pure.
import { createHash } from 'node:crypto';

export type Labels = Readonly<Record<string, string>>;

export const ANY = 'any'; // the name of the selector that asks for nothing

// The labels are those of a selector, and perhaps others.
export const matches = (labels: Labels, selector: Labels | null | undefined): boolean =>
  Object.entries(selector ?? {}).every(([key, value]) => Object.hasOwn(labels, key) && labels[key] === value);

const inOrder = (labels: Labels): [string, string][] => Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));

// As lanes are told apart by it.
export function nameOf(selector: Labels): string {
  const all = inOrder(selector);
  return all.length === 0 ? ANY : createHash('sha256').update(JSON.stringify(all)).digest('hex').slice(0, 40);
}

export const textOf = (labels: Labels): string =>
  inOrder(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(', ') || 'no labels';

// What both ask for. A label of which they want different values is told instead.
export function merge(one: Labels, other: Labels): { selector: Labels; conflict?: string } {
  const conflict = Object.keys(other).find((key) => Object.hasOwn(one, key) && one[key] !== other[key]);
  return { selector: { ...one, ...other }, ...(conflict === undefined ? {} : { conflict }) };
}

// From a column, which comes as text when it went through an expression. Null: no labels.
export function labelsOf(column: unknown): Labels | null {
  const read = typeof column === 'string' ? JSON.parse(column) : column;
  return read && Object.keys(read).length > 0 ? (read as Labels) : null;
}
