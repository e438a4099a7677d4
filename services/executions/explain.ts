// Explains executions: reads what is known, again when the execution moved meanwhile.
import { Environment_State } from '#gen/millrace/automations/v1/environment.ts';
import type {
  EnvironmentBuildServiceService,
  GetEnvironmentBuildResponse,
} from '#gen/millrace/automations/v1/environment_build_service.ts';
import type { Explanation } from '#gen/millrace/executions/v1/explanation.ts';
import type { ClientOf } from '#platform/client.ts';
import type { Pool } from '#platform/db.ts';
import { aborted } from '#platform/errors.ts';
import { isFinal } from './engine/machine.ts';
import type { LoadSpecs } from './engine/specs.ts';
import { type Fleet, type Row, type StateName, stateOf } from './execution.ts';
import * as store from './explain-store.ts';
import { type Environment, explain, type Place } from './explanation.ts';
import { narrow, type Reads } from './reads.ts';

export type Explain = (workspace: string, id: string) => Promise<Explanation>;

const LOOKS = 20;

const STATES: Partial<Record<Environment_State, Environment['state']>> = {
  [Environment_State.QUEUED]: 'QUEUED',
  [Environment_State.BUILDING]: 'BUILDING',
  [Environment_State.READY]: 'READY',
  [Environment_State.FAILED]: 'FAILED',
};

type Builds = Pick<ClientOf<typeof EnvironmentBuildServiceService>, 'getEnvironmentBuild'>;
interface Deps {
  pool: Pool;
  reads: Reads;
  fleet: () => Promise<Fleet>;
  maxRunning: number | null; // of each workspace for which nothing else is set
  specs: LoadSpecs;
  builds: () => Builds; // a process that has no address of theirs explains all else
}

export const openExplain = ({ pool, reads, fleet, maxRunning, specs, builds }: Deps): Explain => {
  let known: Builds | undefined;
  async function ask(digest: string): Promise<GetEnvironmentBuildResponse> {
    known ??= builds();
    return known.getEnvironmentBuild({ digest });
  }

  // The libraries that it needs, unless every server has them. How far their build is stays open when nobody can be asked.
  async function environmentOf(row: Row): Promise<Environment | undefined> {
    const spec = (await specs([row]))(row)?.spec;
    if (!spec?.environmentDigest || isFinal(stateOf(row))) return undefined;
    const build = await ask(spec.environmentDigest).catch(() => undefined);
    return { name: spec.environment, state: build && STATES[build.state], error: build?.error ?? '' };
  }

  return async (workspace, id) => {
    for (let look = 0; look < LOOKS; look += 1) {
      const row = await reads.row(workspace, id);
      const found = await store.standing(pool, row.workspace, row.id, maxRunning);
      if (found && fits(stateOf(row), found.place))
        return explain({ row, fleet: narrow(await fleet(), row), environment: await environmentOf(row), ...found });
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
