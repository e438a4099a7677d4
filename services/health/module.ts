// Tells whether the installation works: asks every area's health service.
import { Client, credentials } from '@grpc/grpc-js';
import { HealthCheckRequest, HealthCheckResponse, HealthCheckResponse_ServingStatus as Serving } from '#gen/grpc/health/v1/health.ts';
import { HealthServiceService, GetHealthResponse_Status as Status } from '#gen/millrace/health/v1/health_service.ts';
import type { Module } from '#platform/module.ts';

const PATIENCE_MS = 1000;

// Each area and the service whose health stands for it.
const AREAS = {
  identity: 'millrace.identity.v1.IdentityService',
  tasks: 'millrace.tasks.v1.TaskService',
  automations: 'millrace.automations.v1.AutomationService',
  executions: 'millrace.executions.v1.ExecutionService',
  schedules: 'millrace.schedules.v1.ScheduleService',
  webhooks: 'millrace.webhooks.v1.HookService',
  runner: '',
} as const;

export const module: Module = {
  name: 'health',
  async start(p) {
    const clients = (Object.keys(AREAS) as (keyof typeof AREAS)[]).map((area) => {
      const client = new Client(`dns:///${p.address(area)}`, credentials.createInsecure(), { 'grpc.max_reconnect_backoff_ms': 1000 });
      return { area, client };
    });
    p.serve(HealthServiceService, {
      async getHealth() {
        const states = await Promise.all(clients.map(async ({ area, client }) => [area, await ask(client, AREAS[area])] as const));
        const isWell = states.every(([, state]) => state === Status.SERVING);
        return { status: isWell ? Status.SERVING : Status.NOT_SERVING, areas: Object.fromEntries(states) };
      },
    });
    return async () => {
      for (const { client } of clients) client.close();
    };
  },
};

const ask = (client: Client, service: string): Promise<Status> =>
  new Promise((resolve) => {
    client.makeUnaryRequest(
      '/grpc.health.v1.Health/Check',
      (request: HealthCheckRequest) => Buffer.from(HealthCheckRequest.encode(request).finish()),
      (bytes: Buffer) => HealthCheckResponse.decode(bytes),
      { service },
      { deadline: Date.now() + PATIENCE_MS },
      (error, response) => resolve(!error && response?.status === Serving.SERVING ? Status.SERVING : Status.NOT_SERVING),
    );
  });
