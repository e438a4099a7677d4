// Explains executions: reads what is known, again when the execution moved meanwhile.
import type { EgressGrantServiceService } from '#gen/millrace/automations/v1/egress_grant_service.ts';
import { Environment_State } from '#gen/millrace/automations/v1/environment.ts';
import type {
  EnvironmentBuildServiceService,
  GetEnvironmentBuildResponse,
} from '#gen/millrace/automations/v1/environment_build_service.ts';
import { type AutomationSpec, AutomationSpec_Network } from '#gen/millrace/automations/v1/spec.ts';
import type { Explanation } from '#gen/millrace/executions/v1/explanation.ts';
import type { ClientOf } from '#platform/client.ts';
import type { Pool } from '#platform/db.ts';
import { aborted } from '#platform/errors.ts';
import { StartFault } from '#platform/module.ts';
import { isFinal } from './engine/machine.ts';
import { type LoadSpecs, namesValues } from './engine/specs.ts';
import { type Fleet, type StateName, stateOf } from './execution.ts';
import * as store from './explain-store.ts';
import { type Environment, explain, type Place } from './explanation.ts';
import { narrow, type Reads } from './reads.ts';

export type Explain = (workspace: string, id: string) => Promise<Explanation>;

const LOOKS = 20;
const PATIENCE_MS = 1000; // with automations

const STATES: Partial<Record<Environment_State, Environment['state']>> = {
  [Environment_State.QUEUED]: 'QUEUED',
  [Environment_State.BUILDING]: 'BUILDING',
  [Environment_State.READY]: 'READY',
  [Environment_State.FAILED]: 'FAILED',
};

type Builds = Pick<ClientOf<typeof EnvironmentBuildServiceService>, 'getEnvironmentBuild'>;
type Grants = Pick<ClientOf<typeof EgressGrantServiceService>, 'resolveEgressGrants'>;
interface Deps {
  pool: Pool;
  reads: Reads;
  fleet: () => Promise<Fleet>;
  maxRunning: number | null; // of each workspace for which nothing else is set
  specs: LoadSpecs;
  builds: () => Builds; // throw in a process that has no address of theirs, which explains all else
  grants: () => Grants;
}

export const openExplain = ({ pool, reads, fleet, maxRunning, specs, builds, grants }: Deps): Explain => {
  let known: Builds | undefined;
  async function ask(digest: string): Promise<GetEnvironmentBuildResponse> {
    known ??= builds();
    return known.getEnvironmentBuild({ digest });
  }

  // The libraries that it needs, unless every server has them. How far their build is stays open when nobody can be asked.
  async function environmentOf({ environmentDigest, environment }: AutomationSpec): Promise<Environment | undefined> {
    if (!environmentDigest) return undefined;
    const build = await ask(environmentDigest).catch(() => undefined);
    return { name: environment, state: build && STATES[build.state], error: build?.error ?? '' };
  }

  // What it is started with, when automations does not tell it: then it is claimed and given back, again and again.
  async function untoldOf(spec: AutomationSpec, workspaceId: string): Promise<string[]> {
    const needed = [
      ...(namesValues(spec) ? ['its secrets and variables'] : []),
      ...(spec.network === AutomationSpec_Network.EGRESS ? ['where it may connect to'] : []),
    ];
    if (needed.length === 0) return [];
    try {
      await grants().resolveEgressGrants({ workspaceIds: [workspaceId] }, { deadlineMs: PATIENCE_MS });
    } catch (error) {
      if (!(error instanceof StartFault)) return needed;
    }
    return [];
  }

  return async (workspace, id) => {
    for (let look = 0; look < LOOKS; look += 1) {
      const row = await reads.row(workspace, id);
      const found = await store.standing(pool, row.workspace, row.id, maxRunning);
      if (!found || !fits(stateOf(row), found.place)) continue;
      const spec = found.place && (await specs([row]))(row)?.spec;
      const environment = spec && (await environmentOf(spec));
      const untold = spec ? await untoldOf(spec, workspace) : [];
      return explain({ row, fleet: narrow(await fleet(), row), environment, untold, ...found });
    }
    throw aborted(`execution ${id} moves on too fast to be explained: try again`);
  };
};

const PLACES: Partial<Record<StateName, readonly Place['kind'][]>> = {
  QUEUED: ['ready', 'waiting', 'timers'],
  RUNNING: ['running'],
  CANCELLING: ['running'],
};

// Whether both reads saw it in the same state.
const fits = (state: StateName, place: Place | undefined): boolean =>
  isFinal(state) ? place === undefined : place !== undefined && (PLACES[state] ?? ['timers']).includes(place.kind);
