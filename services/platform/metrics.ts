// Metrics: prom-client's default registry, read at /metrics of the admin port. Names are millrace_<area>_<what>_<unit>.
import { Counter, collectDefaultMetrics, Gauge, Histogram, register } from 'prom-client';

export const counter = <L extends string>(name: string, help: string, labelNames: L[] = []): Counter<L> =>
  known(name) ?? new Counter({ name, help, labelNames });

export const gauge = <L extends string>(name: string, help: string, labelNames: L[] = []): Gauge<L> =>
  known(name) ?? new Gauge({ name, help, labelNames });

export const histogram = <L extends string>(name: string, help: string, labelNames: L[] = [], buckets = SECONDS): Histogram<L> =>
  known(name) ?? new Histogram({ name, help, labelNames, buckets });

export const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
export const COUNTS = [1, 2, 4, 8, 16, 32, 64, 128, 256];

const known = <M>(name: string): M | undefined => register.getSingleMetric(name) as M | undefined;

export const metricsText = async (): Promise<{ type: string; body: string }> => ({
  type: register.contentType,
  body: await register.metrics(),
});

const LAG_EVERY_MS = 200; // an idle process wakes so often for the event loop's delay, which tells this much more than the delay itself

// Process figures: memory, processor, garbage collection, event-loop delay.
export function collectProcess(): void {
  if (!known('process_cpu_user_seconds_total')) collectDefaultMetrics({ eventLoopMonitoringPrecision: LAG_EVERY_MS });
}
