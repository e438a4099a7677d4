// Automations: scripts with their immutable revisions; what is published of them is what executions run. And the secrets and variables of a
// workspace, which scripts may use.
import { AutomationServiceService } from '#gen/millrace/automations/v1/automation_service.ts';
import { EgressGrantServiceService } from '#gen/millrace/automations/v1/egress_grant_service.ts';
import { EgressPolicyServiceService } from '#gen/millrace/automations/v1/egress_policy_service.ts';
import { EnvironmentBuildServiceService } from '#gen/millrace/automations/v1/environment_build_service.ts';
import { EnvironmentServiceService } from '#gen/millrace/automations/v1/environment_service.ts';
import { SecretServiceService } from '#gen/millrace/automations/v1/secret_service.ts';
import { ValueServiceService } from '#gen/millrace/automations/v1/value_service.ts';
import { VariableServiceService } from '#gen/millrace/automations/v1/variable_service.ts';
import { ProjectionServiceService } from '#gen/millrace/executions/v1/projection_service.ts';
import { RunnerServiceService } from '#gen/millrace/runner/v1/runner_service.ts';
import type { Module } from '#platform/module.ts';
import { every } from '#platform/pause.ts';
import { settings } from './config.ts';
import { openBuilds } from './environment-builds.ts';
import { egressGrantHandlers, egressPolicyHandlers } from './handlers/egress.ts';
import { environmentBuildHandlers } from './handlers/environment-builds.ts';
import { environmentHandlers } from './handlers/environments.ts';
import { secretHandlers } from './handlers/secrets.ts';
import { valueHandlers } from './handlers/values.ts';
import { variableHandlers } from './handlers/variables.ts';
import { handlers } from './handlers.ts';
import { keepTelling } from './projection.ts';
import { rewrap } from './secret-system.ts';
import { openVault } from './secret-vault.ts';

const REWRAP_MS = 10 * 60_000; // the first time at once; another process may still have sealed by the key before

export const module: Module = {
  name: 'automations',
  migrations: new URL('./migrations/', import.meta.url),
  async start({ db, bus, clock, log, client, serve, settings: read }) {
    const executions = client(ProjectionServiceService, 'executions');
    const runner = client(RunnerServiceService, 'runner');
    const { secretKeys, maxSecrets, maxVariables } = read(settings);
    const vault = openVault(secretKeys);
    const deps = { db, clock, log, executions, runner };
    const builds = openBuilds({ db, bus });
    serve(EnvironmentServiceService, environmentHandlers({ db, log, clock, builds, runner }));
    serve(EnvironmentBuildServiceService, environmentBuildHandlers({ builds }));
    serve(AutomationServiceService, handlers(deps));
    serve(SecretServiceService, secretHandlers({ db, clock, vault, maxSecrets }));
    serve(VariableServiceService, variableHandlers({ db, clock, maxVariables }));
    serve(EgressPolicyServiceService, egressPolicyHandlers({ db, clock }));
    serve(EgressGrantServiceService, egressGrantHandlers({ db }));
    serve(ValueServiceService, valueHandlers({ db, vault, log }));
    const stops = [keepTelling(deps), every(REWRAP_MS, () => rewrap(db, vault, log), log)];
    return async () => void (await Promise.all(stops.map((stop) => stop())));
  },
};
