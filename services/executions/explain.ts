// Explains executions: reads what is known, again when the execution moved meanwhile.
import { Environment_State } from '#gen/millrace/automations/v1/environment.ts';
import type { EnvironmentBuildServiceService } from '#gen/millrace/automations/v1/environment_build_service.ts';
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

interface Deps {
  pool: Pool;
  reads: Reads;
  fleet: () => Promise<Fleet>;
  specs: LoadSpecs;
  builds: Pick<ClientOf<typeof EnvironmentBuildServiceService>, 'getEnvironmentBuild'>;
}

export const openExplain = ({ pool, reads, fleet, specs, builds }: Deps): Explain => {
  // The libraries that it needs, unless every server has them. How far their build is stays open when nobody can be asked.
  async function environmentOf(row: Row): Promise<Environment | undefined> {
    const spec = (await specs([row]))(row)?.spec;
    if (!spec?.environmentDigest || isFinal(stateOf(row))) return undefined;
    const build = await builds.getEnvironmentBuild({ digest: spec.environmentDigest }).catch(() => undefined);
    return { name: spec.environment, state: build && (Environment_State[build.state] as Environment['state']), error: build?.error ?? '' };
  }

  return async (workspace, id) => {
    for (let look = 0; look < LOOKS; look += 1) {
      const row = await reads.row(workspace, id);
      const found = await store.standing(pool, row.workspace, row.id);
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
