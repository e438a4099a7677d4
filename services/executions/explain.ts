// Explains executions: reads what is known, again when the execution moved meanwhile.
import type { Explanation } from '#gen/millrace/executions/v1/explanation.ts';
import type { Pool } from '#platform/db.ts';
import { aborted } from '#platform/errors.ts';
import { isFinal } from './engine/machine.ts';
import { type Fleet, type StateName, stateOf } from './execution.ts';
import * as store from './explain-store.ts';
import { explain, type Place } from './explanation.ts';
import { narrow, type Reads } from './reads.ts';

export type Explain = (workspace: string, id: string) => Promise<Explanation>;

const LOOKS = 20;

interface Deps {
  pool: Pool;
  reads: Reads;
  fleet: () => Promise<Fleet>;
  maxRunning: number | null; // of each workspace for which nothing else is set
}

export const openExplain = ({ pool, reads, fleet, maxRunning }: Deps): Explain => {
  return async (workspace, id) => {
    for (let look = 0; look < LOOKS; look += 1) {
      const row = await reads.row(workspace, id);
      const found = await store.standing(pool, row.workspace, row.id, maxRunning);
      if (found && fits(stateOf(row), found.place)) return explain({ row, fleet: narrow(await fleet(), row), ...found });
    }
    throw aborted(`execution ${id} moves on too fast to be explained: try again`);
  };
};

const PLACES: Partial<Record<StateName, readonly Place['kind'][]>> = {
  QUEUED: ['ready', 'waiting'],
  RUNNING: ['running'],
  CANCELLING: ['running'],
};

// Whether both reads saw it in the same state.
const fits = (state: StateName, place: Place | undefined): boolean =>
  isFinal(state) ? place === undefined : place !== undefined && (PLACES[state] ?? ['timers']).includes(place.kind);
