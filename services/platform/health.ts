// The states of what a process depends on: for /readyz, and by the health protocol (grpc/health/v1) for each service.
import { type Server, type ServerUnaryCall, type ServerWritableStream, type sendUnaryData, status } from '@grpc/grpc-js';
import {
  type HealthCheckRequest,
  type HealthCheckResponse,
  HealthService,
  HealthCheckResponse_ServingStatus as Serving,
} from '#gen/grpc/health/v1/health.ts';
import { pause } from './pause.ts';

export interface Health {
  check(module: string, name: string, probe: () => Promise<void>): void;
  serves(service: string, module: string): void;
  drain(): void; // from now on nothing is ready
  report(): { ready: boolean; draining: boolean; checks: Record<string, string> };
  refresh(): Promise<void>;
  stop(): void;
}

const EVERY_MS = 1000;
const PROBE_MS = 2000;

export function openHealth(server: Server): Health {
  const probes = new Map<string, { module: string; probe: () => Promise<void> }>();
  const states = new Map<string, string>();
  const services = new Map<string, string>([['', '']]);
  const watchers = new Set<() => void>();
  const stopped = new AbortController();
  let draining = false;

  async function probe(name: string, run: () => Promise<void>): Promise<void> {
    const late = pause(PROBE_MS).then(() => Promise.reject(new Error(`no answer within ${PROBE_MS} ms`)));
    const state = await Promise.race([run(), late]).then(
      () => 'ok',
      (error: Error) => error.message || 'failed',
    );
    states.set(name, state);
  }
  async function refresh(): Promise<void> {
    await Promise.all([...probes].map(([name, { probe: run }]) => probe(name, run)));
    for (const tell of watchers) tell();
  }
  async function loop(): Promise<void> {
    while (!stopped.signal.aborted) {
      await refresh();
      await pause(EVERY_MS, stopped.signal);
    }
  }

  const isServing = (module: string): boolean =>
    !draining &&
    [...probes].every(([name, one]) => (module !== '' && one.module !== module && one.module !== '') || states.get(name) === 'ok');
  const statusOf = (service: string): Serving | undefined => {
    const module = services.get(service);
    if (module === undefined) return undefined;
    return isServing(module) ? Serving.SERVING : Serving.NOT_SERVING;
  };

  server.addService(HealthService, {
    check(call: ServerUnaryCall<HealthCheckRequest, HealthCheckResponse>, callback: sendUnaryData<HealthCheckResponse>) {
      const found = statusOf(call.request.service);
      if (found === undefined) return callback({ code: status.NOT_FOUND, details: `${call.request.service} is not served here` });
      callback(null, { status: found });
    },
    watch(call: ServerWritableStream<HealthCheckRequest, HealthCheckResponse>) {
      let last: Serving | undefined;
      const tell = () => {
        const now = statusOf(call.request.service) ?? Serving.SERVICE_UNKNOWN;
        if (now !== last) call.write({ status: now });
        last = now;
      };
      watchers.add(tell);
      tell();
      call.on('cancelled', () => {
        watchers.delete(tell);
        call.end();
      });
      stopped.signal.addEventListener('abort', () => call.end(), { once: true });
    },
    list(_call: ServerUnaryCall<unknown, unknown>, callback: sendUnaryData<{ statuses: Record<string, HealthCheckResponse> }>) {
      callback(null, {
        statuses: Object.fromEntries([...services.keys()].map((name) => [name, { status: statusOf(name) ?? Serving.UNKNOWN }])),
      });
    },
  } as never);

  void loop();
  return {
    check(module, name, run) {
      const key = module ? `${module}.${name}` : name;
      probes.set(key, { module, probe: run });
      states.set(key, 'starting');
    },
    serves: (service, module) => void services.set(service, module),
    drain() {
      draining = true;
      for (const tell of watchers) tell();
    },
    report: () => ({ ready: isServing(''), draining, checks: Object.fromEntries(states) }),
    refresh,
    stop: () => stopped.abort(),
  };
}
