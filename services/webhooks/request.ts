// request.ts: a request to a hook as it came, and what expressions and people get to see of it.
import { createHash } from 'node:crypto';
import { type Hook, HookAuth_Type } from '#gen/millrace/webhooks/v1/hook.ts';
import { toleranceOf } from './signature.ts';

export interface Request {
  method: string;
  headers: Readonly<Record<string, string>>; // lower-case names
  query: string; // without the question mark
  contentType: string;
  body: Buffer;
}
// What must not count twice, and for how long.
export interface Key {
  hash: Buffer;
  seconds: number;
}

export const REDACTED = '[redacted]';
export const MAX_BODY_BYTES = 1024 * 1024;

const ID_SECONDS = 30 * 24 * 3600;
const MAX_DEPTH = 64;
const MAX_HEADERS_BYTES = 16 * 1024;
const JSON_TYPE = /^(application|text)\/([\w.+-]+\+)?json$/;
const FORM_TYPE = 'application/x-www-form-urlencoded';
const CREDENTIALS = /authorization|cookie|signature|hmac|secret|token|api-?key|password|credential/;
// What the edge or gRPC adds; it says nothing of the sender.
const INNER = /^(x-envoy-|x-request-id$|x-forwarded-|grpc-|te$|traceparent$|tracestate$|baggage$|content-length$)/;

// Names that begin with : are gRPC's own, those that end in -bin are bytes.
export function headersOf(metadata: Readonly<Record<string, unknown>>, contentType: string): Record<string, string> {
  const entries = Object.entries(metadata).filter(
    ([name, value]) => typeof value === 'string' && !INNER.test(name) && !name.endsWith('-bin'),
  );
  return Object.assign({ 'content-type': '' }, Object.fromEntries(entries) as Record<string, string>, { 'content-type': contentType });
}

// Without what may be a credential, and not more than can be kept.
export function redacted(headers: Readonly<Record<string, string>>, secretHeader = ''): Record<string, string> {
  let bytes = 0;
  return Object.fromEntries(
    Object.entries(headers)
      .map(([name, value]) => [name, name === secretHeader || CREDENTIALS.test(name) ? REDACTED : value] as const)
      .filter(([name, value]) => {
        bytes += Buffer.byteLength(name) + Buffer.byteLength(value);
        return bytes <= MAX_HEADERS_BYTES;
      }),
  );
}

// The body as a value: JSON, the fields of a form, else the text. Undefined when it is none of them.
export function bodyOf({ contentType, body }: Pick<Request, 'contentType' | 'body'>): unknown {
  const type = contentType.split(';')[0]?.trim().toLowerCase() ?? '';
  const text = textOf(body);
  if (text === undefined) return undefined;
  if (type === FORM_TYPE) return Object.fromEntries(new URLSearchParams(text));
  if (JSON_TYPE.test(type) || type === '') return parsed(text) ?? (type === '' ? text : undefined);
  return text;
}

function parsed(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return isShallow(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

// What is nested deeper no message holds.
function isShallow(value: unknown): boolean {
  let level = [value];
  for (let depth = 0; depth <= MAX_DEPTH; depth += 1) {
    level = level.flatMap((one) => (one !== null && typeof one === 'object' ? Object.values(one) : []));
    if (level.length === 0) return true;
  }
  return false;
}

function textOf(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch {
    return undefined;
  }
}

// What expressions see.
export const variablesOf = (request: Request): Record<string, unknown> => ({
  method: request.method,
  headers: request.headers,
  query: Object.fromEntries(new URLSearchParams(request.query)),
  body: bodyOf(request) ?? null,
});

// RFC 6901. Undefined where nothing stands.
export function pointed(value: unknown, pointer: string): unknown {
  return pointer
    .split('/')
    .slice(1)
    .reduce<unknown>((at, part) => {
      const key = part.replaceAll('~1', '/').replaceAll('~0', '~');
      if (Array.isArray(at)) return /^(0|[1-9]\d*)$/.test(key) ? at[Number(key)] : undefined;
      return at !== null && typeof at === 'object' && Object.hasOwn(at, key) ? (at as Record<string, unknown>)[key] : undefined;
    }, value);
}

// The sender's delivery id; empty when there is none.
export function deliveryIdOf({ deliveryId }: Pick<Hook, 'deliveryId'>, request: Request): string {
  if (deliveryId === '') return '';
  const found = deliveryId.startsWith('/') ? pointed(bodyOf(request), deliveryId) : request.headers[deliveryId];
  return typeof found === 'string' || typeof found === 'number' ? String(found) : '';
}

// A delivery is one by its id. A signature that does not cover the id proves only that its bytes were signed once: those count once within
// the tolerance, whatever id stands beside them.
export function keysOf(hook: Pick<Hook, 'auth'>, deliveryId: string, signed: Buffer | undefined): Key[] {
  const { auth } = hook;
  const keys: Key[] = deliveryId === '' ? [] : [{ hash: digest('id', Buffer.from(deliveryId)), seconds: ID_SECONDS }];
  const isIdSigned = deliveryId !== '' && (auth?.signed.includes('{id}') ?? false);
  if (auth?.type === HookAuth_Type.HMAC && signed && !isIdSigned) keys.push({ hash: digest('signed', signed), seconds: toleranceOf(auth) });
  return keys;
}

const digest = (kind: string, bytes: Buffer): Buffer => createHash('sha256').update(`${kind}\n`).update(bytes).digest();
