// Rate limits of each method, per user and per address, in buckets that REST and gRPC share and new routes do not empty.
import type { Method } from '#platform/contract.ts';
import { extension, type Fields } from './config.ts';
import { CLAIMS, claim, type Limits, METADATA } from './policy.ts';

const MAX_CALLERS = 10_000; // the buckets of the least recent callers are forgotten
const PLENTY = { max_tokens: 1_000_000, tokens_per_fill: 1_000_000, fill_interval: '1s' }; // asked for, never reached

const METHOD = {
  metadata: { descriptor_key: 'method', source: 'ROUTE_ENTRY', metadata_key: { key: METADATA, path: [{ key: 'method' }] } },
};

export const perAddress = (methods: readonly Method[], limits: Limits): Fields[] =>
  limiter('rate_address', { remote_address: {} }, 'remote_address', methods, (method) => limits.perMinute(method.perAddressPerMinute));

export const perUser = (methods: readonly Method[], limits: Limits): Fields[] =>
  limiter(
    'rate_user',
    { metadata: { descriptor_key: 'user', source: 'DYNAMIC', metadata_key: { key: CLAIMS, path: claim('sub') } } },
    'user',
    methods,
    (method) => limits.perMinute(method.perUserPerMinute),
  );

function limiter(name: string, caller: Fields, key: string, methods: readonly Method[], limitOf: (method: Method) => number): Fields[] {
  const limited = methods.filter((method) => limitOf(method) > 0);
  if (limited.length === 0) return [];
  return [
    {
      name,
      typed_config: extension('filters.http.local_ratelimit.v3.LocalRateLimit', {
        stat_prefix: name,
        token_bucket: PLENTY,
        always_consume_default_token_bucket: false,
        max_dynamic_descriptors: MAX_CALLERS,
        rate_limited_as_resource_exhausted: true,
        filter_enabled: { default_value: { numerator: 100 } },
        filter_enforced: { default_value: { numerator: 100 } },
        rate_limits: [{ actions: [METHOD, caller] }],
        descriptors: limited.map((method) => ({
          entries: [{ key: 'method', value: method.path }, { key }],
          token_bucket: { max_tokens: limitOf(method), tokens_per_fill: limitOf(method), fill_interval: '60s' },
        })),
      }),
    },
  ];
}
