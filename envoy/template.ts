// Paths of google.api.http rules (google/api/http.proto, "Path template syntax") as RE2 patterns, and the order in which they are tried.

const VARIABLE = /\{[^}=]+(?:=([^}]+))?\}/g;
const ANY = '[^/:]+'; // `:` starts a custom verb
const REST = '[^:]+';

const withoutNames = (path: string): string => path.replace(VARIABLE, (_, pattern: string | undefined) => pattern ?? '*');

export const pathPattern = (path: string): string =>
  withoutNames(path)
    .split(/(\*\*|\*)/)
    .map((part) => (part === '**' ? REST : part === '*' ? ANY : part.replace(/[.+?^${}()|[\]\\]/g, '\\$&')))
    .join('');

// The longer the literal part, the more specific the path.
export const literalLength = (path: string): number => withoutNames(path).replaceAll('*', '').length;
