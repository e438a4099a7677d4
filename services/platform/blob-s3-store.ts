// Requests to an object store: every wait has an end, and a fault says what an operator can do. Nothing of the library is loaded before the first one.
import type * as Sdk from '@aws-sdk/client-s3';
import { Fault, unavailable } from './errors.ts';

export interface Place {
  bucket: string;
  prefix: string; // of the names of objects: empty, or with a / at its end
  endpoint: string | undefined;
  region: string;
  key: { id: string; secret: string } | undefined;
  isPathStyle: boolean;
}
export interface Store {
  at(name: string): { Bucket: string; Key: string };
  ask<Answer>(request: Request<Answer>, limits?: Limits): Promise<Answer | undefined>; // undefined: the store has no such thing
  explain(fault: Fault): string; // for operators: callers are not told where things are
  failedAt(): number; // when it did not do last what it was asked, by the monotonic clock
}
interface Asked {
  sdk: typeof Sdk;
  at: Store['at'];
  send: Sdk.S3Client['send'];
}
interface Opened {
  sdk: typeof Sdk;
  client: Sdk.S3Client;
}
type Request<Answer> = (asked: Asked) => Promise<Answer>;
type Refused = Partial<Sdk.S3ServiceException> & { code?: string };
interface Limits {
  answerMs: number; // of one try, to the beginning of its answer
  allMs: number; // of all tries
}

const CONNECT_MS = 3000;
const USUAL: Limits = { answerMs: 30_000, allMs: 60_000 };
const TRIES = 3;
const SOCKETS = 1000; // a download that nobody reads keeps one

export function openStore(place: Place): Store {
  const where = `bucket ${place.bucket} at ${place.endpoint ? new URL(place.endpoint).host : `Amazon S3 in ${place.region}`}`;
  const at = (name: string) => ({ Bucket: place.bucket, Key: `${place.prefix}${name}` });
  let failed = Number.NEGATIVE_INFINITY;
  let opened: Promise<Opened> | undefined;

  return {
    at,
    explain: (fault) => `${fault.message}, ${where}${fault.cause ? `: ${wayOutOf(fault.cause)}` : ''}`,
    failedAt: () => failed,
    async ask(request, { answerMs, allMs } = USUAL) {
      opened ??= open(place);
      const end = lateness(allMs);
      try {
        const options = { abortSignal: end.signal, requestTimeout: answerMs };
        const { sdk, client } = await opened;
        const send = (command: never) => client.send(command, options);
        return await Promise.race([request({ sdk, at, send: send as Sdk.S3Client['send'] }), end.late]);
      } catch (error) {
        if (isMissing(error)) return undefined;
        failed = performance.now();
        throw faultOf(error);
      } finally {
        end.clear();
      }
    },
  };
}

// Also of what heeds no signal, such as looking for credentials.
function lateness(ms: number): { signal: AbortSignal; late: Promise<never>; clear(): void } {
  const giveUp = new AbortController();
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    giveUp.abort();
    reject(Object.assign(new Error(`no answer within ${ms} ms`), { name: 'TimeoutError' }));
  }, ms);
  return { signal: giveUp.signal, late, clear: () => clearTimeout(timer) };
}

async function open({ endpoint, region, key, isPathStyle }: Place): Promise<Opened> {
  const sdk = await import('@aws-sdk/client-s3');
  const agent = { keepAlive: true, maxSockets: SOCKETS };
  const client = new sdk.S3Client({
    region,
    ...(endpoint ? { endpoint } : {}),
    ...(key ? { credentials: { accessKeyId: key.id, secretAccessKey: key.secret } } : {}),
    forcePathStyle: isPathStyle,
    maxAttempts: TRIES,
    requestHandler: { connectionTimeout: CONNECT_MS, throwOnRequestTimeout: true, socketTimeout: 0, httpAgent: agent, httpsAgent: agent },
    // The library's own checksums are headers, and trailers behind a body, that many stores refuse. What is sent has a Content-MD5, which all check.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    expectContinueHeader: false, // it would take a connection for each request
  });
  return { sdk, client };
}

// A bucket that is not there says so by another name, except to HEAD.
const isMissing = (error: unknown): boolean => ['NoSuchKey', 'NotFound', 'NoSuchUpload'].includes((error as Error).name);

const KEYS = 'check MILLRACE_BLOB_S3_ACCESS_KEY and MILLRACE_BLOB_S3_SECRET_KEY';
const RIGHTS = 'GetObject, PutObject, DeleteObject, AbortMultipartUpload, ListBucket, ListBucketMultipartUploads';
const WAYS_OUT: Record<string, string> = {
  InvalidAccessKeyId: KEYS,
  SignatureDoesNotMatch: KEYS,
  ExpiredToken: 'renew the credentials',
  InvalidToken: 'check the credentials',
  CredentialsProviderError: 'set MILLRACE_BLOB_S3_ACCESS_KEY and MILLRACE_BLOB_S3_SECRET_KEY, or what the AWS SDK reads',
  AccessDenied: `the credentials need ${RIGHTS}`,
  NoSuchBucket: 'make it, or correct MILLRACE_BLOB_S3_BUCKET',
  PermanentRedirect: 'correct MILLRACE_BLOB_S3_REGION and MILLRACE_BLOB_S3_ENDPOINT',
  AuthorizationHeaderMalformed: 'correct MILLRACE_BLOB_S3_REGION',
  RequestTimeTooSkewed: 'set the clock of this machine',
};

const kindOf = ({ name = '', $metadata }: Refused): string | undefined =>
  name in WAYS_OUT ? name : { 301: 'PermanentRedirect', 403: 'AccessDenied' }[$metadata?.httpStatusCode ?? 0];

function wayOutOf(error: unknown): string {
  const kind = kindOf(error as Refused);
  if (kind) return WAYS_OUT[kind] ?? '';
  return (error as Refused).$metadata?.httpStatusCode ? 'see its log' : 'is it up, and MILLRACE_BLOB_S3_ENDPOINT right?';
}

// Of what the store or the library says only the code is passed on: a message may quote what was sent.
function faultOf(error: unknown): Fault {
  if (error instanceof Fault) return error;
  const { name = '', code, $metadata } = error as Refused;
  const kind = kindOf(error as Refused);
  if (kind) return unavailable(`the object store refuses what it is asked (${kind})`, 5000, error);
  if ($metadata?.httpStatusCode) return unavailable(`the object store fails (${$metadata.httpStatusCode} ${name})`, 1000, error);
  const isLate = code === 'ETIMEDOUT' || (!code && (name === 'AbortError' || name === 'TimeoutError'));
  return unavailable(`the object store does not answer ${isLate ? 'in time' : `(${code ?? name})`}`, 1000, error);
}
