// Where calls go: one cluster for each area, and those that the edge itself asks.
import { isIP } from 'node:net';
import { ConfigFault } from '#platform/config.ts';
import type { Method } from '#platform/contract.ts';
import { extension, type Fields, hostAndPort, socket } from './config.ts';
import { JWKS_CLUSTER, OTLP_CLUSTER } from './listener.ts';
import { METRICS_CLUSTER } from './routes.ts';
import type { EdgeSettings } from './settings.ts';

const HTTP_OPTIONS = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
const BUFFER_BYTES = 32 * 1024;

export function clusters(methods: readonly Method[], settings: EdgeSettings): Fields[] {
  const areas = [...new Set(['health', ...methods.map((method) => method.area)])].sort();
  const addresses: Partial<Record<string, string>> = settings.areas;
  const missing = areas.filter((area) => !addresses[area]);
  if (missing.length > 0)
    throw new ConfigFault(
      missing.map((area) => `MILLRACE_${area.toUpperCase()}_URL: is not set (where the ${area} area answers gRPC)`).join('\n'),
    );
  return [
    ...areas.map((area) => areaCluster(area, addresses[area] ?? '')),
    urlCluster(JWKS_CLUSTER, settings.jwksUrl),
    ...(settings.otlpEndpoint ? [urlCluster(OTLP_CLUSTER, settings.otlpEndpoint)] : []),
    ...(settings.metrics && settings.metricsAddress ? [cluster(METRICS_CLUSTER, settings.metricsAddress)] : []),
  ];
}

// A name may stand for several servers; one that fails is left out for a while, and a drained one gets no new calls.
const areaCluster = (area: string, address: string): Fields => ({
  ...cluster(area, address),
  lb_policy: 'LEAST_REQUEST',
  typed_extension_protocol_options: {
    [HTTP_OPTIONS]: extension('upstreams.http.v3.HttpProtocolOptions', {
      explicit_http_config: {
        http2_protocol_options: {
          initial_stream_window_size: 64 * 1024,
          initial_connection_window_size: 1024 * 1024,
          connection_keepalive: { interval: '30s', timeout: '5s' },
        },
      },
    }),
  },
  circuit_breakers: {
    thresholds: [{ max_connections: 256, max_pending_requests: 2048, max_requests: 8192, max_retries: 64, track_remaining: true }],
  },
  outlier_detection: {
    consecutive_5xx: 20,
    consecutive_gateway_failure: 5,
    interval: '2s',
    base_ejection_time: '5s',
    max_ejection_percent: 50,
  },
  health_checks: [
    {
      timeout: '1s',
      interval: '2s',
      no_traffic_interval: '5s',
      unhealthy_threshold: 2,
      healthy_threshold: 1,
      grpc_health_check: {},
    },
  ],
});

function urlCluster(name: string, at: string): Fields {
  const { protocol, hostname, port } = new URL(at);
  const isSecure = protocol === 'https:';
  const tls = {
    name: 'tls',
    typed_config: extension('transport_sockets.tls.v3.UpstreamTlsContext', { sni: hostname, common_tls_context: TRUSTED }),
  };
  return { ...cluster(name, `${hostname}:${port || (isSecure ? 443 : 80)}`), ...(isSecure ? { transport_socket: tls } : {}) };
}

const TRUSTED: Fields = { validation_context: { system_root_certs: {} } };

function cluster(name: string, address: string): Fields {
  const { host } = hostAndPort(address);
  return {
    name,
    type: isIP(host) ? 'STATIC' : 'STRICT_DNS',
    dns_lookup_family: 'V4_PREFERRED', // localhost is also ::1, where a server of this machine may not listen
    connect_timeout: '1s',
    per_connection_buffer_limit_bytes: BUFFER_BYTES,
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address: socket(address) } }] }] },
  };
}
