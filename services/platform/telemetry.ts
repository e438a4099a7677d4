// OpenTelemetry, loaded by `node --import ./services/platform/telemetry.ts` and only when an OTLP endpoint is set: traces across Envoy,
// gRPC, knex, mysql2, NATS (through the outbox) and the automation servers.
import { register } from 'node:module';
import type { tracing } from '@opentelemetry/sdk-node';

const LONGEST_STATEMENT = 1000;
const STOP_MS = 3000;

let shutdown: () => Promise<void> = async () => undefined;

// Sends what waits, unless the collector does not answer in time.
export const stopTelemetry = (): Promise<unknown> =>
  Promise.race([shutdown().catch(() => undefined), new Promise((resolve) => setTimeout(resolve, STOP_MS))]);

if (process.env.OTEL_EXPORTER_OTLP_ENDPOINT) {
  register('@opentelemetry/instrumentation/hook.mjs', import.meta.url);
  const [{ NodeSDK, tracing: sampling }, { GrpcInstrumentation }, { KnexInstrumentation }, { MySQL2Instrumentation }] = await Promise.all([
    import('@opentelemetry/sdk-node'),
    import('@opentelemetry/instrumentation-grpc'),
    import('@opentelemetry/instrumentation-knex'),
    import('@opentelemetry/instrumentation-mysql2'),
  ]);
  const { ParentBasedSampler, SamplingDecision } = sampling;
  // Statements that serve nobody's call, such as a worker's look at its table, would each be a trace.
  const root = {
    shouldSample: (...[, , , , attributes]: Parameters<tracing.Sampler['shouldSample']>) => ({
      decision: isStatement(attributes) ? SamplingDecision.NOT_RECORD : SamplingDecision.RECORD_AND_SAMPLED,
    }),
    toString: () => 'WithoutLoneStatements',
  };
  const sdk = new NodeSDK({
    serviceName: process.env.OTEL_SERVICE_NAME ?? 'millrace',
    instrumentations: [
      // Probes come every second, and a session lasts as long as its processes: the jobs in it have spans of their own.
      new GrpcInstrumentation({ ignoreGrpcMethods: ['Check', 'Watch', 'Session', 'session'] }),
      new KnexInstrumentation({ requireParentSpan: true, maxQueryLength: 0 }), // mysql2 tells the statement, without its values
      new MySQL2Instrumentation({ maskStatement: true, maskStatementHook: withoutValues }),
    ],
    ...(process.env.OTEL_TRACES_SAMPLER ? {} : { sampler: new ParentBasedSampler({ root }) }),
  });
  sdk.start();
  shutdown = () => sdk.shutdown();
}

function isStatement(attributes: object): boolean {
  return 'db.system' in attributes || 'db.system.name' in attributes;
}

// Literals may be what users keep here.
export function withoutValues(statement: string): string {
  return statement
    .replace(/'(?:[^'\\]|\\[\s\S]|'')*'|"(?:[^"\\]|\\[\s\S]|"")*"|\b0x[0-9a-f]+\b|\b\d+(?:\.\d+)?\b/gi, '?')
    .slice(0, LONGEST_STATEMENT);
}
