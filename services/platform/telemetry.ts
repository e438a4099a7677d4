// OpenTelemetry, loaded by `node --import ./services/platform/telemetry.ts` and only when an OTLP endpoint is set: traces across Envoy,
// gRPC, knex, mysql2, NATS (through the outbox) and the automation servers.
import { register } from 'node:module';

if (process.env.OTEL_EXPORTER_OTLP_ENDPOINT) {
  register('@opentelemetry/instrumentation/hook.mjs', import.meta.url);
  const [{ NodeSDK }, { GrpcInstrumentation }, { KnexInstrumentation }, { MySQL2Instrumentation }] = await Promise.all([
    import('@opentelemetry/sdk-node'),
    import('@opentelemetry/instrumentation-grpc'),
    import('@opentelemetry/instrumentation-knex'),
    import('@opentelemetry/instrumentation-mysql2'),
  ]);
  const sdk = new NodeSDK({
    serviceName: process.env.OTEL_SERVICE_NAME ?? 'millrace',
    instrumentations: [new GrpcInstrumentation(), new KnexInstrumentation(), new MySQL2Instrumentation()],
  });
  sdk.start();
  process.once('beforeExit', () => void sdk.shutdown());
}
