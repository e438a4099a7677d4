// signature.ts: whether a request proves that it comes from a hook's sender. Every comparison takes the same time, whatever differs.
//
// Sources: RFC 2104 (HMAC), RFC 7617 (Basic); standardwebhooks.com; docs.stripe.com/webhooks#verify-manually;
// docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { type HookAuth, HookAuth_Algorithm, HookAuth_Encoding, HookAuth_Layout, HookAuth_Type } from '#gen/millrace/webhooks/v1/hook.ts';
import type { Request } from './request.ts';

// `signed`: the bytes that the signature is over, undefined where nothing is signed.
export type Verdict = { isGenuine: true; signed: Buffer | undefined } | { isGenuine: false; why: string };

const ALGORITHMS = { [HookAuth_Algorithm.SHA1]: 'sha1', [HookAuth_Algorithm.SHA512]: 'sha512' } as Record<number, string>;
const MAX_SIGNATURES = 8; // a sender that rotates its own keys sends two or three
const TOLERANCE_SECONDS = 300;
const STANDARD_PREFIX = 'whsec_';
const PAD = randomBytes(32);

export const toleranceOf = (auth: HookAuth): number => auth.tolerance?.seconds ?? TOLERANCE_SECONDS;

// Any of the secrets may be the one: two count while one is being replaced. All are tried, so that time tells nothing of them.
export function verify(auth: HookAuth, secrets: readonly string[], request: Request, deliveryId: string, now: Date): Verdict {
  switch (auth.type) {
    case HookAuth_Type.NONE:
      return { isGenuine: true, signed: undefined };
    case HookAuth_Type.BASIC:
      return verifyText(
        request.headers.authorization,
        secrets.map((secret) => `Basic ${Buffer.from(`${auth.username}:${secret}`).toString('base64')}`),
        'authorization',
      );
    case HookAuth_Type.API_KEY:
      return verifyText(
        request.headers[auth.header],
        secrets.map((secret) => auth.prefix + secret),
        auth.header,
      );
    default:
      return verifySignature(auth, secrets, request, deliveryId, now);
  }
}

function verifyText(given: string | undefined, expected: readonly string[], header: string): Verdict {
  if (given === undefined) return { isGenuine: false, why: `the header ${header} is missing` };
  const scheme = given.replace(/^basic +/i, 'Basic ');
  const isEqual = expected.map((one) => equal(Buffer.from(header === 'authorization' ? scheme : given), Buffer.from(one))).includes(true);
  return isEqual ? { isGenuine: true, signed: undefined } : { isGenuine: false, why: `the header ${header} does not hold the secret` };
}

function verifySignature(auth: HookAuth, secrets: readonly string[], request: Request, deliveryId: string, now: Date): Verdict {
  const header = request.headers[auth.header];
  if (header === undefined) return { isGenuine: false, why: `the header ${auth.header} is missing` };
  const { signatures, timestamp } = readHeader(auth, header, request);
  const signed = signedBytes(auth.signed, request.body, timestamp ?? '', deliveryId);
  const given = signatures.map((text) => decode(auth.encoding, text));
  const isEqual = secrets
    .flatMap((secret) => {
      const expected = signatureOf(auth, secret, signed);
      return given.map((one) => equal(one, expected));
    })
    .includes(true);
  if (!isEqual) return { isGenuine: false, why: `the signature in ${auth.header} does not fit the body and the secret` };
  if (auth.signed.includes('{timestamp}')) {
    if (timestamp === undefined || !/^\d{1,12}$/.test(timestamp))
      return { isGenuine: false, why: 'the time of signing is missing or is no number' };
    const seconds = Math.abs(now.getTime() / 1000 - Number(timestamp));
    if (seconds > toleranceOf(auth))
      return { isGenuine: false, why: `the time of signing is ${Math.round(seconds)} s from now, more than the tolerance` };
  }
  return { isGenuine: true, signed };
}

export const signatureOf = (auth: Pick<HookAuth, 'algorithm' | 'layout'>, secret: string, signed: Uint8Array): Buffer =>
  createHmac(ALGORITHMS[auth.algorithm] ?? 'sha256', keyOf(auth.layout, secret))
    .update(signed)
    .digest();

function keyOf(layout: HookAuth_Layout, secret: string): Buffer {
  const isStandard = layout === HookAuth_Layout.STANDARD && secret.startsWith(STANDARD_PREFIX);
  return isStandard ? Buffer.from(secret.slice(STANDARD_PREFIX.length), 'base64') : Buffer.from(secret, 'utf8');
}

export function signedBytes(template: string, body: Uint8Array, timestamp: string, id: string): Buffer {
  const [before = '', after = ''] = template.split('{body}');
  const fill = (text: string) => Buffer.from(text.replace(/\{(timestamp|id)\}/g, (_, name) => (name === 'id' ? id : timestamp)));
  return Buffer.concat([fill(before), body, fill(after)]);
}

// The signatures that the header brings, as written, and the time of signing. None where the header is not laid out as it should be.
function readHeader(auth: HookAuth, header: string, request: Request): { signatures: string[]; timestamp: string | undefined } {
  const timestamp = auth.timestampHeader ? request.headers[auth.timestampHeader] : undefined;
  if (auth.layout === HookAuth_Layout.LIST) {
    const pairs = header.split(',').map((pair) => pair.trim().split('=', 2) as [string, string?]);
    const all = (name: string) => pairs.flatMap(([key, value]) => (key === name && value !== undefined ? [value] : []));
    return { signatures: all('v1').slice(0, MAX_SIGNATURES), timestamp: all('t')[0] };
  }
  if (auth.layout === HookAuth_Layout.STANDARD) {
    const versioned = header.split(' ').flatMap((one) => (one.startsWith('v1,') ? [one.slice(3)] : []));
    return { signatures: versioned.slice(0, MAX_SIGNATURES), timestamp };
  }
  return { signatures: header.startsWith(auth.prefix) ? [header.slice(auth.prefix.length)] : [], timestamp };
}

// The bytes that are written. Nothing where the text is not of the encoding: Node would take the part that is.
function decode(encoding: HookAuth_Encoding, text: string): Buffer {
  const form = encoding === HookAuth_Encoding.BASE64 ? /^[A-Za-z0-9+/_-]*={0,2}$/ : /^(?:[0-9a-fA-F]{2})*$/;
  if (!form.test(text)) return Buffer.alloc(0);
  return Buffer.from(text, encoding === HookAuth_Encoding.BASE64 ? 'base64' : 'hex');
}

// Compares digests of both, which are equally long.
function equal(given: Uint8Array, expected: Uint8Array): boolean {
  const digest = (bytes: Uint8Array) => createHmac('sha256', PAD).update(bytes).digest();
  return timingSafeEqual(digest(given), digest(expected));
}
