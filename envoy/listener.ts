// The public listener: how connections are treated, and the chain of filters that every request passes.
import { readFileSync } from 'node:fs';
import type { Method } from '#platform/contract.ts';
import { extension, type Fields, resource, socket } from './config.ts';
import { CLAIMS, JWT, type Limits, METADATA, PAYLOAD, RBAC, USER } from './policy.ts';
import { perAddress, perUser } from './rates.ts';
import { localReplies } from './replies.ts';
import { BODY_LIMIT, CORS, TRANSCODER, TRANSCODER_OPEN, TRANSCODER_SSE } from './routes.ts';
import type { EdgeSettings } from './settings.ts';

export const JWKS_CLUSTER = 'jwks';
export const OTLP_CLUSTER = 'otlp';

const MIB = 1024 * 1024;
const MAX_MESSAGE = 4 * MIB; // as the services' servers
const MAX_ANSWER = 16 * MIB; // a message of 4 MiB as JSON
const REST_LUA = new URL('./rest.lua', import.meta.url);

interface Options {
  methods: readonly Method[];
  settings: EdgeSettings;
  limits: Limits;
  descriptorPath: string;
  routes: Fields; // where the routes are: `rds` or `route_config`
}

export const listener = (options: Options): Fields => ({
  name: 'edge',
  address: socket(options.settings.address),
  enable_reuse_port: false, // a second edge on the port must fail, not share the calls
  per_connection_buffer_limit_bytes: 32 * 1024,
  filter_chains: [{ filters: [{ name: 'http', typed_config: connectionManager(options) }] }],
});

function connectionManager({ methods, settings, limits, descriptorPath, routes }: Options): Fields {
  const headers = securityHeaders(settings.publicUrl);
  return extension('filters.network.http_connection_manager.v3.HttpConnectionManager', {
    stat_prefix: 'edge',
    codec_type: 'AUTO',
    ...routes,
    use_remote_address: true,
    xff_num_trusted_hops: settings.trustedHops,
    normalize_path: true,
    merge_slashes: true,
    path_with_escaped_slashes_action: 'REJECT_REQUEST',
    server_header_transformation: 'PASS_THROUGH',
    generate_request_id: true,
    always_set_request_id_in_response: true,
    request_headers_timeout: '10s',
    stream_idle_timeout: '60s',
    drain_timeout: '5s',
    common_http_protocol_options: { idle_timeout: '600s', headers_with_underscores_action: 'REJECT_REQUEST', max_headers_count: 100 },
    http2_protocol_options: {
      max_concurrent_streams: 100,
      initial_stream_window_size: 64 * 1024,
      initial_connection_window_size: MIB,
      connection_keepalive: { interval: '30s', timeout: '5s' },
    },
    early_header_mutation_extensions: [
      {
        name: 'strip',
        typed_config: extension('http.early_header_mutation.header_mutation.v3.HeaderMutation', {
          mutations: spoofable(settings.trustedHops),
        }),
      },
    ],
    access_log: [accessLog],
    ...(settings.otlpEndpoint ? { tracing: tracing(settings.otlpEndpoint) } : {}),
    local_reply_config: localReplies({ ...headers, 'cache-control': 'no-store' }),
    http_filters: [
      ...(settings.corsOrigins.length > 0 ? [{ name: CORS, typed_config: extension('filters.http.cors.v3.Cors') }] : []),
      lua(headers),
      { name: 'grpc_web', typed_config: extension('filters.http.grpc_web.v3.GrpcWeb') },
      { name: BODY_LIMIT, typed_config: extension('filters.http.body_size_limit.v3.BodySizeLimit', { max_request_bytes: MAX_MESSAGE }) },
      ...perAddress(methods, limits),
      { name: TRANSCODER, typed_config: transcoder(methods, descriptorPath, LINES) },
      { name: TRANSCODER_SSE, disabled: true, typed_config: transcoder(methods, descriptorPath, { stream_sse_style_delimited: true }) },
      ...openTranscoder(methods, descriptorPath),
      // From here on the route is that of the method that is really called, however the REST path was read.
      { name: JWT, typed_config: authentication(settings) },
      { name: RBAC, typed_config: extension('filters.http.rbac.v3.RBAC', { rules: { action: 'ALLOW', policies: {} } }) },
      ...perUser(methods, limits),
      { name: 'router', typed_config: extension('filters.http.router.v3.Router', { suppress_envoy_headers: true }) },
    ],
  });
}

const securityHeaders = (publicUrl: string): Record<string, string> => ({
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  ...(publicUrl.startsWith('https:') ? { 'strict-transport-security': 'max-age=31536000; includeSubDomains' } : {}),
});

// What a caller might send to be taken for the edge, for a proxy or for somebody else.
function spoofable(trustedHops: number): Fields[] {
  const starts = ['x-envoy-', 'x-user-', 'x-millrace-', 'x-edge-', 'x-jwt-', 'x-original-', 'x-rewrite-', 'x-http-'];
  const names = [
    'x-tenant',
    'x-real-ip',
    'forwarded',
    ...(trustedHops === 0 ? ['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-prefix'] : []),
  ];
  return [
    ...starts.map((prefix) => ({ remove_on_match: { key_matcher: { prefix, ignore_case: true } } })),
    ...names.map((remove) => ({ remove })),
  ];
}

const LINES: Fields = { stream_newline_delimited: true };

function openTranscoder(all: readonly Method[], descriptorPath: string): Fields[] {
  const methods = all.filter((method) => method.isQueryOpen);
  if (methods.length === 0) return [];
  const typed_config = { ...transcoder(methods, descriptorPath, LINES), ignore_unknown_query_parameters: true };
  return [{ name: TRANSCODER_OPEN, disabled: true, typed_config }];
}

const transcoder = (methods: readonly Method[], descriptorPath: string, stream: Fields): Fields =>
  extension('filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder', {
    proto_descriptor: descriptorPath,
    services: [...new Set(methods.map((method) => method.service))],
    convert_grpc_status: true,
    url_unescape_spec: 'ALL_CHARACTERS_EXCEPT_RESERVED',
    query_param_unescape_plus: true,
    print_options: { always_print_primitive_fields: true, ...stream },
    request_validation_options: {
      reject_unknown_method: true,
      reject_unknown_query_parameters: true,
      reject_binding_body_field_collisions: true,
    },
    max_request_body_size: MAX_MESSAGE,
    max_response_body_size: MAX_ANSWER,
  });

// The services verify the token again, so it goes on as it came.
const authentication = ({ publicUrl, jwksUrl }: EdgeSettings): Fields =>
  extension('filters.http.jwt_authn.v3.JwtAuthentication', {
    providers: {
      identity: {
        issuer: publicUrl,
        audiences: ['millrace'],
        from_headers: [{ name: 'Authorization', value_prefix: 'Bearer ' }],
        forward: true,
        require_expiration: true,
        payload_in_metadata: PAYLOAD,
        normalize_payload_in_metadata: { space_delimited_claims: ['scope'] },
        jwt_cache_config: { jwt_cache_size: 1000 },
        remote_jwks: {
          http_uri: { uri: jwksUrl, cluster: JWKS_CLUSTER, timeout: '2s' },
          cache_duration: '60s',
          async_fetch: { failed_refetch_duration: '2s' },
        },
      },
    },
    requirement_map: { [USER]: { provider_name: 'identity' } },
    rules: [{ match: { prefix: '/' }, requires: { provider_name: 'identity' } }], // for a route that says nothing
    bypass_cors_preflight: true,
  });

function lua(headers: Record<string, string>): Fields {
  const table = Object.entries(headers).map(([name, value]) => `[${JSON.stringify(name)}] = ${JSON.stringify(value)}`);
  const source = `SECURITY_HEADERS = { ${table.join(', ')} }\n${readFileSync(REST_LUA, 'utf8')}`;
  return { name: METADATA, typed_config: extension('filters.http.lua.v3.Lua', { default_source_code: { inline_string: source } }) };
}

// Without query strings and headers, which may hold secrets.
const accessLog: Fields = {
  name: 'stdout',
  typed_config: extension('access_loggers.stream.v3.StdoutAccessLog', {
    log_format: {
      json_format: {
        time: '%START_TIME%',
        method: '%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%',
        path: '%PATH(NQ:ORIG_OR_PATH)%',
        route: '%ROUTE_NAME%',
        status: '%RESPONSE_CODE%',
        grpcStatus: '%GRPC_STATUS%',
        flags: '%RESPONSE_FLAGS%',
        detail: '%RESPONSE_CODE_DETAILS%',
        durationMs: '%DURATION%',
        bytesIn: '%BYTES_RECEIVED%',
        bytesOut: '%BYTES_SENT%',
        address: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%',
        user: `%DYNAMIC_METADATA(${CLAIMS}:${PAYLOAD}:sub)%`,
        requestId: '%REQ(X-REQUEST-ID)%',
        upstream: '%UPSTREAM_HOST%',
      },
    },
  }),
};

const tracing = (endpoint: string): Fields => ({
  provider: {
    name: 'otlp',
    typed_config: resource('trace.v3.OpenTelemetryConfig', {
      service_name: 'millrace-edge',
      http_service: {
        http_uri: { uri: `${endpoint.replace(/\/$/, '')}/v1/traces`, cluster: OTLP_CLUSTER, timeout: '5s' },
      },
    }),
  },
  spawn_upstream_span: true,
});
