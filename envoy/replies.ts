// What the edge answers by itself: the same errors as a service's, as JSON for REST and as a status with details for gRPC, in our words
// and never in Envoy's.
import { status } from '@grpc/grpc-js';
import { type Code, type CommonReason, Fault } from '#platform/errors.ts';
import { toStatus } from '#platform/status.ts';
import { extension, type Fields, header } from './config.ts';

const DOMAIN = 'edge.millrace';
const GRPC_DETAILS = 'grpc-status-details-bin';
const GRPC_CODE = 'x-edge-grpc-code'; // read and removed by rest.lua
const TYPES = 'type.googleapis.com/google.rpc.';
const ROUTE = (key: string): string => `%METADATA(ROUTE:edge:${key})%`;

interface Reply {
  status: number; // that Envoy would answer with
  atLeast?: boolean; // this status or a higher one
  because?: string; // a part of Envoy's reason; any when absent
  as?: number; // the status to answer with instead
  code: Code;
  grpcCode?: Code; // where gRPC's custom is another one
  reason: CommonReason;
  message: string;
  metadata?: Record<string, string>;
  retryAfter?: string; // seconds, or what tells them
  details?: string; // what tells the details for gRPC when they depend on the route
}

const needs = (scope: string): string => `the token does not hold the permission ${scope}`;
const TOO_OFTEN = 'called too often: wait as long as retry-after says';
const AWAY = 'the service does not answer just now: try again in a moment';

const UNFIT = {
  code: 'INVALID_ARGUMENT',
  reason: 'REQUEST_MALFORMED',
  message: 'the request does not fit the contract: %LOCAL_REPLY_BODY%',
} as const;

// The first that fits is taken; the last of a status takes what is left.
const REPLIES: readonly Reply[] = [
  { status: 400, because: 'grpc_json_transcode_failure', ...UNFIT },
  { status: 400, because: 'lua_response', ...UNFIT },
  {
    status: 400,
    code: 'INVALID_ARGUMENT',
    reason: 'REQUEST_MALFORMED',
    message: 'the request cannot be read: send a plain path without escaped slashes, and header names without underscores',
  },
  {
    status: 401,
    because: 'Jwt_is_missing',
    code: 'UNAUTHENTICATED',
    reason: 'TOKEN_MISSING',
    message: 'the call needs a token: send the header authorization: Bearer <token>',
  },
  {
    status: 401,
    because: 'Jwt_is_expired',
    code: 'UNAUTHENTICATED',
    reason: 'TOKEN_INVALID',
    message: 'the token has expired: refresh it or sign in again',
  },
  {
    status: 401,
    because: 'Jwks_remote_fetch_is_failed',
    as: 503,
    code: 'UNAVAILABLE',
    reason: 'DEPENDENCY_UNAVAILABLE',
    message: 'the keys that tokens are checked with cannot be fetched from identity: try again in a moment',
    retryAfter: '1',
  },
  { status: 401, code: 'UNAUTHENTICATED', reason: 'TOKEN_INVALID', message: 'the token is not valid here: sign in again' },
  {
    status: 403,
    because: 'Audiences_in_Jwt_are_not_allowed',
    as: 401,
    code: 'UNAUTHENTICATED',
    reason: 'TOKEN_INVALID',
    message: 'the token is for another audience: sign in here',
  },
  {
    status: 403,
    because: 'rbac_access_denied',
    code: 'PERMISSION_DENIED',
    reason: 'PERMISSION_MISSING',
    message: needs(ROUTE('permission')),
    metadata: { permission: ROUTE('permission') },
    details: ROUTE('denied'),
  },
  { status: 403, code: 'PERMISSION_DENIED', reason: 'REQUEST_MALFORMED', message: 'the edge does not serve this kind of request' },
  {
    status: 404,
    code: 'NOT_FOUND',
    grpcCode: 'UNIMPLEMENTED',
    reason: 'ROUTE_NOT_FOUND',
    message: 'nothing is served at this path with this method: see the API description',
  },
  {
    status: 408,
    code: 'DEADLINE_EXCEEDED',
    reason: 'DEPENDENCY_UNAVAILABLE',
    message: 'the request did not arrive in time: send it again',
  },
  { status: 413, code: 'INVALID_ARGUMENT', reason: 'REQUEST_TOO_LARGE', message: 'the body is larger than 4 MiB: send less at once' },
  {
    status: 429,
    code: 'RESOURCE_EXHAUSTED',
    reason: 'OVERLOADED',
    message: TOO_OFTEN,
    retryAfter: ROUTE('retry_after'),
    details: ROUTE('exhausted'),
  },
  { status: 431, code: 'INVALID_ARGUMENT', reason: 'REQUEST_TOO_LARGE', message: 'the headers are larger than 60 KiB: send less' },
  { status: 503, code: 'UNAVAILABLE', reason: 'DEPENDENCY_UNAVAILABLE', message: AWAY, retryAfter: '1' },
  {
    status: 504,
    code: 'DEADLINE_EXCEEDED',
    reason: 'DEPENDENCY_UNAVAILABLE',
    message: 'the call took longer than it may: look at its state before repeating it',
  },
  { status: 500, atLeast: true, code: 'UNAVAILABLE', reason: 'DEPENDENCY_UNAVAILABLE', message: AWAY, retryAfter: '1' },
  {
    status: 400,
    atLeast: true,
    code: 'INVALID_ARGUMENT',
    reason: 'REQUEST_MALFORMED',
    message: 'the edge cannot serve this request: compare it with the API description',
  },
];

// Details that depend on the route are made once and stand in its metadata.
export const denied = (scope: string): string =>
  encoded({ code: 'PERMISSION_DENIED', reason: 'PERMISSION_MISSING', message: needs(scope), metadata: { permission: scope } });
export const exhausted = (retryAfterMs: number): string =>
  encoded({ code: 'RESOURCE_EXHAUSTED', reason: 'OVERLOADED', message: TOO_OFTEN }, retryAfterMs);

function encoded({ code, reason, message, metadata = {} }: Omit<Reply, 'status'>, retryAfterMs?: number): string {
  const fault = new Fault(code, reason, message, { domain: DOMAIN, metadata, ...(retryAfterMs ? { retryAfterMs } : {}) });
  return Buffer.from(toStatus(fault).metadata?.get(GRPC_DETAILS)[0] as Buffer).toString('base64');
}

// `headers` stand on every reply, because those that are made before the filters never meet the Lua filter.
export const localReplies = (headers: Readonly<Record<string, string>>): Fields => ({
  mappers: REPLIES.flatMap((reply) => [rest(reply, headers), grpc(reply)]),
});

const rest = (reply: Reply, headers: Readonly<Record<string, string>>): Fields => ({
  filter: { and_filter: { filters: [...filters(reply), { or_filter: { filters: [IS_NOT_GRPC, IS_TRANSCODED] } }] } },
  ...(reply.as ? { status_code: reply.as } : {}),
  headers_to_add: Object.entries({ ...headers, ...retryAfter(reply) }).map(([key, value]) => header(key, value)),
  body_format_override: {
    json_format: {
      code: status[reply.code],
      message: reply.message,
      details: [
        { '@type': `${TYPES}ErrorInfo`, reason: reply.reason, domain: DOMAIN, metadata: reply.metadata ?? {} },
        ...(reply.retryAfter ? [{ '@type': `${TYPES}RetryInfo`, retryDelay: `${reply.retryAfter}s` }] : []),
      ],
    },
  },
});

// What is left after the REST mapper of the same reply. gRPC-Web's filter sets a code of its own, which the Lua filter puts right.
const grpc = ({ grpcCode, ...rest }: Reply): Fields => grpcReply({ ...rest, code: grpcCode ?? rest.code });
const grpcReply = (reply: Reply): Fields => ({
  filter: { and_filter: { filters: [...filters(reply), ANYTHING] } },
  headers_to_add: [
    header('grpc-status', `${status[reply.code]}`),
    header(GRPC_CODE, `${status[reply.code]}`),
    header(GRPC_DETAILS, reply.details ?? encoded(reply, reply.retryAfter ? Number(reply.retryAfter) * 1000 : undefined)),
    ...Object.entries(retryAfter(reply)).map(([key, value]) => header(key, value)),
  ],
  body_format_override: { text_format_source: { inline_string: reply.message } },
});

const retryAfter = (reply: Reply): Record<string, string> => (reply.retryAfter ? { 'retry-after': reply.retryAfter } : {});

const compare = (op: string, value: number): Fields => ({
  status_code_filter: { comparison: { op, value: { default_value: value, runtime_key: `edge.reply.${op}.${value}` } } },
});
const filters = ({ status, atLeast, because }: Reply): Fields[] => [
  compare(atLeast ? 'GE' : 'EQ', status),
  ...(because ? [{ extension_filter: { name: 'because', typed_config: expression(`response.code_details.contains('${because}')`) } }] : []),
];
const expression = (text: string): Fields => extension('access_loggers.filters.cel.v3.ExpressionFilter', { expression: text });

const ANYTHING: Fields = compare('GE', 0);
const IS_NOT_GRPC: Fields = {
  header_filter: {
    header: {
      name: 'content-type',
      string_match: { prefix: 'application/grpc' },
      treat_missing_header_as_empty: true,
      invert_match: true,
    },
  },
};
const IS_TRANSCODED: Fields = { header_filter: { header: { name: 'x-envoy-original-method', present_match: true } } };
