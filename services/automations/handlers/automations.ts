// handlers/automations.ts: the methods about automations themselves, in the contract's order.
import { Automation } from '#gen/millrace/automations/v1/automation.ts';
import type { AutomationServiceService } from '#gen/millrace/automations/v1/automation_service.ts';
import type { Tx } from '#platform/db.ts';
import type { Handlers } from '#platform/handlers.ts';
import { newId } from '#platform/id.ts';
import { claimKey } from '#platform/idempotency.ts';
import { maskedFields } from '#platform/mask.ts';
import { emit } from '#platform/outbox.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import * as automation from '../automation.ts';
import { change, type Deps } from '../change.ts';
import { mustNotHaveFailed } from '../environment.ts';
import * as events from '../events.ts';
import { tell } from '../projection.ts';
import * as store from '../store/automations.ts';
import * as environments from '../store/environments.ts';
import * as revisions from '../store/revisions.ts';
import { checkNamed } from '../values.ts';

const PATIENCE_MS = 500;

type Methods =
  | 'createAutomation'
  | 'getAutomation'
  | 'listAutomations'
  | 'updateAutomation'
  | 'deleteAutomation'
  | 'publishAutomation'
  | 'rollbackAutomation';

export const automationHandlers = (deps: Deps): Pick<Handlers<AutomationServiceService>, Methods> => ({
  async createAutomation({ automation: draft = Automation.fromPartial({}) }, call) {
    const { workspace, user } = call.caller;
    const made = automation.accept(draft, user, newId('automation'), deps.clock());
    const kept = await deps.db.transaction(async (tx) => {
      const earlier = await claimKey(tx, call, made.id);
      if (earlier) return store.get(tx, workspace, earlier);
      await store.insert(tx, workspace, made);
      await emit(tx, events.created(made, call.caller));
      return made;
    });
    // There is nothing to run yet, so executions may learn of it later.
    await tell(deps, workspace, kept.id, PATIENCE_MS).catch((error) => call.log.warn({ error }, 'executions hear of an automation later'));
    return kept;
  },

  async getAutomation({ id }, { caller }) {
    return store.get(deps.db, caller.workspace, id);
  },

  async listAutomations({ text, pageSize: asked, pageToken }, { caller }) {
    const query = { text };
    const size = pageSize(asked);
    const found = await store.list(deps.db, caller.workspace, text, decodePage<store.Position>(pageToken, query), size + 1);
    const { items, last } = cutPage(found, size, Automation);
    return { automations: items, nextPageToken: last ? encodePage(query, { name: last.name, id: last.id }) : '' };
  },

  async updateAutomation({ id, automation: draft = Automation.fromPartial({}), updateMask }, { caller }) {
    const fields = maskedFields(updateMask, draft, automation.UPDATABLE, Automation);
    return change(deps, caller, id, (before, now) => automation.update(before, draft, fields, now));
  },

  async deleteAutomation({ id }, { caller }) {
    await deps.db.transaction(async (tx) => {
      if (await store.isRemoved(tx, caller.workspace, id)) return; // an earlier call could not tell executions
      const gone = await store.lock(tx, caller.workspace, id);
      await store.remove(tx, caller.workspace, gone, deps.clock());
      await emit(tx, events.deleted(gone, caller));
    });
    await tell(deps, caller.workspace, id);
    return {};
  },

  async publishAutomation({ id, revision: asked }, { caller }) {
    return change(deps, caller, id, async (before, now, tx) => {
      const revision = automation.revisionToPublish(before, asked);
      if (revision === before.publishedRevision) return before;
      await mustBeBuildable(tx, caller.workspace, id, revision);
      const { spec } = await revisions.get(tx, caller.workspace, id, revision);
      await checkNamed(tx, caller.workspace, id, spec);
      const present = await revisions.publication(tx, caller.workspace, id);
      await revisions.publish(tx, caller.workspace, id, automation.publication(present, revision), caller.user, now);
      return automation.published(before, revision, now);
    });
  },

  async rollbackAutomation({ id }, call) {
    const { workspace, user } = call.caller;
    return change(deps, call.caller, id, async (before, now, tx) => {
      const present = await revisions.publication(tx, workspace, id);
      if (await claimKey(tx, call, `${id}/${(present?.sequence ?? 0) + 1}`)) return before; // this very call was made before
      const parent = await revisions.publication(tx, workspace, id, present?.parent);
      const made = automation.rollback(id, present, parent);
      await revisions.publish(tx, workspace, id, made, user, now);
      return automation.published(before, made.revision, now);
    });
  },
});

// The environment of a revision may still be built, but not have failed.
async function mustBeBuildable(tx: Tx, workspace: string, id: string, revision: number): Promise<void> {
  const { spec } = await revisions.get(tx, workspace, id, revision);
  if (spec?.environmentDigest) mustNotHaveFailed(spec.environment, await environments.stateOf(tx, spec.environmentDigest));
}
