// The settings of the edge. MILLRACE_<AREA>_URL, MILLRACE_PUBLIC_URL and MILLRACE_IDENTITY_JWKS_URL mean what they mean for the services.
import { z } from 'zod';
import {
  address,
  areaSettings,
  ConfigFault,
  flag,
  integer,
  list,
  number,
  readSettings,
  setting,
  text,
  url,
  type Values,
} from '#platform/config.ts';

const ownSettings = {
  address: setting(
    'MILLRACE_EDGE_ADDRESS',
    address.default('127.0.0.1:8000'),
    'the public listener, IP address and port; port 0 means a free one',
  ),
  adminAddress: setting(
    'MILLRACE_EDGE_ADMIN_ADDRESS',
    z.union([address, text.startsWith('/')], { error: 'must be the absolute path of a socket or host:port' }).optional(),
    "the edge's admin port: the absolute path of a unix socket, or host:port; unset means admin.sock in the output folder",
  ),
  corsOrigins: setting('MILLRACE_EDGE_CORS_ORIGINS', list, 'the origins whose pages may call, separated by commas; * means all'),
  reflection: setting('MILLRACE_EDGE_REFLECTION', flag(false), 'whether reflection and grpc.health.v1 are reachable'),
  metrics: setting('MILLRACE_EDGE_METRICS', flag(false), 'whether GET /metrics is reachable'),
  metricsAddress: setting('MILLRACE_METRICS_ADDRESS', address.optional(), 'the admin port whose /metrics the edge shows, host:port'),
  rateScale: setting('MILLRACE_EDGE_RATE_SCALE', number(1, 0, 1_000_000), 'a factor on all rate limits; 0 means none'),
  trustedHops: setting('MILLRACE_EDGE_TRUSTED_HOPS', integer(0, 0, 10), 'how many proxies in front of the edge add to x-forwarded-for'),
  publicUrl: setting(
    'MILLRACE_PUBLIC_URL',
    url.transform((value) => value.replace(/\/$/, '')),
    'the address that users see, the issuer of tokens',
  ),
  jwksUrl: setting('MILLRACE_IDENTITY_JWKS_URL', url, 'where the public keys of user tokens are fetched, on the admin port of identity'),
  otlpEndpoint: setting('OTEL_EXPORTER_OTLP_ENDPOINT', url.optional(), 'the OpenTelemetry collector (OTLP over HTTP)'),
  imagePath: setting('MILLRACE_IMAGE', text.default('build/image.binpb'), 'the descriptor image of the contracts'),
  envoyPath: setting('MILLRACE_ENVOY', text.default('.venv/bin/envoy'), 'the Envoy binary that --validate runs'),
};

export type EdgeSettings = Values<typeof ownSettings> & { areas: Values<typeof areaSettings> };

export function readEdgeSettings(env?: Record<string, string | undefined>): EdgeSettings {
  const settings = readSettings({ ...ownSettings, ...areaSettings }, env);
  if (settings.metrics && !settings.metricsAddress)
    throw new ConfigFault(`MILLRACE_METRICS_ADDRESS: is not set, but MILLRACE_EDGE_METRICS is true (${ownSettings.metricsAddress.doc})`);
  if (new URL(settings.jwksUrl).host === new URL(settings.publicUrl).host)
    throw new ConfigFault(`MILLRACE_IDENTITY_JWKS_URL: leads through the edge itself (${ownSettings.jwksUrl.doc})`);
  return { ...settings, areas: settings };
}
