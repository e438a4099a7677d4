// Every served method as routes: one for gRPC and one for each REST path (two when it streams). Whatever has no route is denied.
import type { Binding, Method } from '#platform/contract.ts';
import { extension, type Fields, header, switched } from './config.ts';
import { accessFilters, callLimits, isRaw, type Limits, METADATA, methodMetadata, open } from './policy.ts';
import type { EdgeSettings } from './settings.ts';
import { pathPattern, variables } from './template.ts';

export const TRANSCODER = 'transcoder';
export const TRANSCODER_SSE = 'transcoder_sse'; // off unless the route asks for it
export const TRANSCODER_OPEN = 'transcoder_open'; // as well: lets queries through that the contract does not name
export const CORS = 'cors';
export const BODY_LIMIT = 'body_limit'; // off where the caller streams
export const METRICS_CLUSTER = 'metrics';
const HEALTH_CLUSTER = 'health';

const wants = (type: string): Fields => ({ name: 'accept', string_match: { contains: type, ignore_case: true } });
const isMethod = (verb: string): Fields => ({ name: ':method', string_match: { exact: verb } });

export function routeConfiguration(methods: readonly Method[], settings: EdgeSettings, limits: Limits): Fields {
  const cors = settings.corsOrigins.length > 0 ? { typed_per_filter_config: { [CORS]: corsPolicy(settings.corsOrigins) } } : {};
  return {
    name: 'edge',
    ignore_port_in_host_matching: true,
    virtual_hosts: [
      {
        name: 'edge',
        domains: ['*'],
        ...cors,
        routes: [
          ...(settings.corsOrigins.length > 0 ? [preflight] : []),
          ...methods.map((method) => grpcRoute(method, limits)),
          ...methods.flatMap((method) => restRoutes(method, limits)),
          ...(settings.reflection ? REFLECTED.map(reflection) : []),
          ...(settings.metrics ? [metrics] : []),
          deny,
        ],
      },
    ],
  };
}

// A gRPC call, and where a REST call continues once it is transcoded: the policy of the method that is really called stands here. The
// transcoder refuses anything else at these paths.
const grpcRoute = (method: Method, limits: Limits): Fields => ({
  name: method.path,
  match: { path: method.path },
  ...common(method, limits, {}),
});

function restRoutes(method: Method, limits: Limits): Fields[] {
  const isSplit = answersInStream(method) && !isRaw(method);
  return method.bindings.flatMap((binding) =>
    isSplit
      ? [
          restRoute(method, binding, limits, { kind: 'sse', headers: [wants('text/event-stream')], filters: SSE }),
          restRoute(method, binding, limits, { kind: 'ndjson', headers: [], filters: {} }),
        ]
      : [restRoute(method, binding, limits, undefined, method.isQueryOpen ? OPEN : {})],
  );
}

interface Variant {
  kind: string;
  headers: Fields[];
  filters: Fields;
}
const sends = ({ desc }: Method): boolean => desc.methodKind === 'client_streaming' || desc.methodKind === 'bidi_streaming';
const answersInStream = ({ desc }: Method): boolean => desc.methodKind === 'server_streaming' || desc.methodKind === 'bidi_streaming';

const OPEN: Fields = { [TRANSCODER]: switched(true), [TRANSCODER_OPEN]: switched(false) };
const SSE: Fields = { [TRANSCODER]: switched(true), [TRANSCODER_SSE]: switched(false) };

function restRoute(method: Method, { verb, path }: Binding, limits: Limits, variant?: Variant, filters = variant?.filters): Fields {
  const at = path.includes('{') ? { safe_regex: { regex: pathPattern(path) } } : { path };
  return {
    name: `${method.path} ${verb} ${path}${variant ? ` ${variant.kind}` : ''}`,
    match: { ...at, headers: [isMethod(verb), ...(variant?.headers ?? [])] },
    ...common(method, limits, { ...bound(path), ...(variant ? { stream: variant.kind } : {}) }, filters),
  };
}

// The fields that a path gives, as rest.lua reads them.
const bound = (path: string): Fields => {
  const names = variables(path).map((name) => name.replaceAll('_', '').toLowerCase());
  return names.length > 0 ? { bound: `|${names.join('|')}|` } : {};
};

const common = (method: Method, limits: Limits, told: Fields, filters: Fields = {}): Fields => ({
  metadata: { filter_metadata: { [METADATA]: { ...methodMetadata(method, limits), ...told } } },
  route: { cluster: method.area, ...callLimits(method) },
  typed_per_filter_config: { ...accessFilters(method), ...(sends(method) ? { [BODY_LIMIT]: switched(true) } : {}), ...filters },
});

// A preflight is answered by the CORS filter, which needs a route with a cluster (envoyproxy/envoy#8262).
const preflight: Fields = {
  name: 'preflight',
  match: { prefix: '/', headers: [isMethod('OPTIONS'), { name: 'access-control-request-method', present_match: true }] },
  route: { cluster: HEALTH_CLUSTER },
  typed_per_filter_config: { ...open, [TRANSCODER]: switched(true) },
};

const REFLECTED = ['grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection', 'grpc.health.v1.Health'];

const reflection = (service: string): Fields => ({
  name: service,
  match: { prefix: `/${service}/` },
  route: { cluster: HEALTH_CLUSTER, timeout: '0s', idle_timeout: '3600s' },
  request_headers_to_add: [header('x-millrace-edge', '1')], // the server then lists every service that the edge serves
  typed_per_filter_config: open,
});

const metrics: Fields = {
  name: 'metrics',
  match: { path: '/metrics', headers: [isMethod('GET')] },
  route: { cluster: METRICS_CLUSTER, timeout: '10s' },
  typed_per_filter_config: { ...open, [TRANSCODER]: switched(true) },
};

const deny: Fields = {
  name: 'deny',
  match: { prefix: '/' },
  direct_response: { status: 404 },
  typed_per_filter_config: { ...open, [TRANSCODER]: switched(true) },
};

const corsPolicy = (origins: readonly string[]): Fields =>
  extension('filters.http.cors.v3.CorsPolicy', {
    allow_origin_string_match: origins.map((exact) => ({ exact })),
    allow_methods: 'GET, POST, PUT, PATCH, DELETE',
    allow_headers:
      'authorization, content-type, accept, idempotency-key, traceparent, tracestate, range, if-range, x-grpc-web, x-user-agent, grpc-timeout',
    expose_headers:
      'location, content-disposition, content-range, etag, repr-digest, retry-after, www-authenticate, x-request-id, grpc-status, grpc-message, grpc-status-details-bin',
    max_age: '600',
    allow_credentials: false, // a page shows its token itself; no call is authenticated by a cookie
    forward_not_matching_preflights: false,
  });
