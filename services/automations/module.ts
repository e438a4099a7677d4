// Automations: scripts with their immutable revisions; what is published of them is what executions run.
import { AutomationServiceService } from '#gen/millrace/automations/v1/automation_service.ts';
import { ProjectionServiceService } from '#gen/millrace/executions/v1/projection_service.ts';
import { RunnerServiceService } from '#gen/millrace/runner/v1/runner_service.ts';
import type { Module } from '#platform/module.ts';
import { handlers } from './handlers.ts';
import { keepTelling } from './projection.ts';

export const module: Module = {
  name: 'automations',
  migrations: new URL('./migrations/', import.meta.url),
  async start({ db, clock, log, client, serve }) {
    const executions = client(ProjectionServiceService, 'executions');
    const runner = client(RunnerServiceService, 'runner');
    const deps = { db, clock, log, executions, runner };
    serve(AutomationServiceService, handlers(deps));
    return keepTelling(deps);
  },
};
