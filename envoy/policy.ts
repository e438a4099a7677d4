// What a method's policy means at the edge: who passes, how often, for how long, and what is tried again.
import type { Method } from '#platform/contract.ts';
import { extension, type Fields, type Json, seconds } from './config.ts';
import { denied, exhausted } from './replies.ts';

// What the filters are called in the chain; routes configure them by these names.
export const JWT = 'jwt';
export const RBAC = 'rbac';
export const PAYLOAD = 'payload'; // where jwt leaves the claims, under its type's name
export const USER = 'user'; // the requirement of a user's token
export const METADATA = 'edge'; // what routes tell filters: also the name of the Lua filter, which reads only its own

const GRACE_MS = 500;
const STREAM_IDLE_MS = 60_000; // services send a keep-alive frame more often

export const isServed = (method: Method): boolean => method.access !== 'SERVICE' && method.bindings.length > 0;

// Its answers are bytes as they are, with a status of their own.
export const isRaw = (method: Method): boolean => method.output.typeName === 'google.api.HttpBody';

// Access is decided by the scope in the token alone. The filters refuse whatever has no such configuration.
export function accessFilters(method: Method): Fields {
  if (method.access === 'PUBLIC') return open;
  return {
    [JWT]: extension('filters.http.jwt_authn.v3.PerRouteConfig', { requirement_name: USER }),
    [RBAC]: extension('filters.http.rbac.v3.RBACPerRoute', method.access === 'PERMISSION' ? { rbac: { rules: holds(method.scope) } } : {}),
  };
}

export const open: Fields = {
  [JWT]: extension('filters.http.jwt_authn.v3.PerRouteConfig', { disabled: true }),
  [RBAC]: extension('filters.http.rbac.v3.RBACPerRoute'),
};

const holds = (scope: string): Fields => ({
  action: 'ALLOW',
  policies: {
    [scope]: {
      permissions: [{ any: true }],
      principals: [
        {
          sourced_metadata: {
            metadata_matcher: {
              filter: CLAIMS,
              path: claim('scope'),
              value: { list_match: { one_of: { string_match: { exact: scope } } } },
            },
          },
        },
      ],
    },
  },
});

// Where the claims of a verified token are found.
export const CLAIMS = 'envoy.filters.http.jwt_authn';
export const claim = (name: string): Json => [{ key: PAYLOAD }, { key: name }];

// Read by the rate limits, the Lua filter and the replies, on the REST route and on the gRPC route alike.
export function methodMetadata(method: Method, limits: Limits): Fields {
  const slowest = Math.max(limits.retryAfterMs(method.perUserPerMinute), limits.retryAfterMs(method.perAddressPerMinute));
  return {
    method: method.path,
    raw: String(isRaw(method)),
    ...(method.scope ? { permission: method.scope, denied: denied(method.scope) } : {}),
    ...(slowest > 0 ? { retry_after: String(Math.ceil(slowest / 1000)), exhausted: exhausted(slowest) } : {}),
  };
}

export interface Limits {
  perMinute(limit: number): number; // 0: none
  retryAfterMs(limit: number): number; // until one call has been refilled
}

export function scaledLimits(scale: number): Limits {
  const perMinute = (limit: number) => (limit * scale === 0 ? 0 : Math.max(1, Math.round(limit * scale)));
  return { perMinute, retryAfterMs: (limit) => (perMinute(limit) === 0 ? 0 : Math.ceil(60_000 / perMinute(limit))) };
}

const RETRY = {
  num_retries: 2,
  retry_host_predicate: [
    { name: 'envoy.retry_host_predicates.previous_hosts', typed_config: extension('retry.host.previous_hosts.v3.PreviousHostsPredicate') },
  ],
  host_selection_retry_max_attempts: '3',
  retry_back_off: { base_interval: '0.025s', max_interval: '0.25s' },
};

// `timeout` alone is ignored once a client sends grpc-timeout, so the limit stands three times. A service ends a call at
// the contract's deadline and says why; the edge waits a little longer and answers only for one that hangs. A unary call may be silent until
// then; a stream may not be silent for long, but lasts as long as it likes.
export function callLimits(method: Method): { [key: string]: Json } {
  const limit = seconds(method.deadlineMs && method.deadlineMs + GRACE_MS);
  return {
    timeout: limit,
    max_stream_duration: { max_stream_duration: limit, grpc_timeout_header_max: limit },
    idle_timeout: seconds(method.isStream ? STREAM_IDLE_MS : method.deadlineMs + 2 * GRACE_MS),
    retry_policy: { ...RETRY, retry_on: `connect-failure,refused-stream${method.isRead && !method.isStream ? ',unavailable' : ''}` },
  };
}
