// handlers/variables.ts: the methods of VariableService, in the contract's order.
import { Variable } from '#gen/millrace/automations/v1/variable.ts';
import type { VariableServiceService } from '#gen/millrace/automations/v1/variable_service.ts';
import type { Db } from '#platform/db.ts';
import type { Handlers } from '#platform/handlers.ts';
import { newId } from '#platform/id.ts';
import { claimKey } from '#platform/idempotency.ts';
import { maskedFields } from '#platform/mask.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import { faults } from '../automation.ts';
import * as store from '../store/variables.ts';
import * as variable from '../variable.ts';

interface Deps {
  db: Db;
  clock: () => Date;
  maxVariables: number;
}

export const variableHandlers = ({ db, clock, maxVariables: max }: Deps): Handlers<VariableServiceService> => ({
  async createVariable({ variable: draft = Variable.fromPartial({}) }, call) {
    const { workspace, user } = call.caller;
    const made = variable.accept(draft, user, newId('variable'), clock());
    return db.transaction(async (tx) => {
      const earlier = await claimKey(tx, call, made.id);
      if (earlier) return store.get(tx, workspace, earlier);
      if ((await store.count(tx, workspace)) >= max) {
        const message = `the workspace has ${max} variables, as many as it may: delete one`;
        throw faults.failedPrecondition('TOO_MANY_VARIABLES', message, { max: `${max}` });
      }
      await store.insert(tx, workspace, made);
      return made;
    });
  },

  async getVariable({ id }, { caller }) {
    return store.get(db, caller.workspace, id);
  },

  async listVariables({ name, pageSize: asked, pageToken }, { caller }) {
    const query = { name };
    const size = pageSize(asked);
    const found = await store.list(db, caller.workspace, name, decodePage<string>(pageToken, query), size + 1);
    const { items, last } = cutPage(found, size, Variable);
    return { variables: items, nextPageToken: last ? encodePage(query, last.name) : '' };
  },

  async updateVariable({ id, variable: draft = Variable.fromPartial({}), updateMask }, { caller }) {
    // 0, false and "" are values: in a body without a mask the value counts when it is there at all
    const mask = updateMask?.length || draft.value === undefined ? updateMask : ['value', ...(draft.description ? ['description'] : [])];
    const fields = maskedFields(mask, draft, variable.UPDATABLE, Variable);
    return db.transaction(async (tx) => {
      const before = await store.lock(tx, caller.workspace, id);
      const after = variable.update(before, draft, fields, clock());
      await store.save(tx, caller.workspace, before, after);
      return after;
    });
  },

  async deleteVariable({ id }, { caller }) {
    await db.transaction((tx) => store.remove(tx, caller.workspace, id));
    return {};
  },
});
