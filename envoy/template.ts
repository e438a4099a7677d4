// Paths of google.api.http rules (google/api/http.proto, "Path template syntax") as RE2 patterns.

const VARIABLE = /\{[^}=]+(?:=([^}]+))?\}/g;
const ANY = '[^/:]+'; // `:` starts a custom verb
const REST = '[^:]+';

const withoutNames = (path: string): string => path.replace(VARIABLE, (_, pattern: string | undefined) => pattern ?? '*');

export const pathPattern = (path: string): string =>
  withoutNames(path)
    .split(/(\*\*|\*)/)
    .map((part) => (part === '**' ? REST : part === '*' ? ANY : part.replace(/[.+?^${}()|[\]\\]/g, '\\$&')))
    .join('');

// The fields that a path gives: `/v1/tasks/{task_id}/comments` gives task_id.
export const variables = (path: string): string[] => [...path.matchAll(/\{([^}=]+)/g)].map(([, name = '']) => name);
