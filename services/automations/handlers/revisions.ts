// handlers/revisions.ts: the methods about revisions and their source, in the contract's order.
import { AutomationRevision } from '#gen/millrace/automations/v1/automation.ts';
import type { AutomationServiceService } from '#gen/millrace/automations/v1/automation_service.ts';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import { Fault, unavailable } from '#platform/errors.ts';
import type { Handlers } from '#platform/handlers.ts';
import { claimKey } from '#platform/idempotency.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import * as automation from '../automation.ts';
import { change, type Deps } from '../change.ts';
import { unifiedDiff } from '../diff.ts';
import { BASE, mustNotHaveFailed, unknownEnvironment } from '../environment.ts';
import * as specs from '../spec.ts';
import * as automations from '../store/automations.ts';
import * as environments from '../store/environments.ts';
import * as store from '../store/revisions.ts';

type Methods =
  | 'createAutomationRevision'
  | 'getAutomationRevision'
  | 'listAutomationRevisions'
  | 'diffAutomationRevisions'
  | 'validateSource';

export const revisionHandlers = (deps: Deps): Pick<Handlers<AutomationServiceService>, Methods> => ({
  async createAutomationRevision({ automationId, spec: draft = AutomationSpec.fromPartial({}), note }, call) {
    const { workspace, user } = call.caller;
    await automations.get(deps.db, workspace, automationId, 'automationId'); // before the costly check
    specs.checkSchemas(draft);
    const environmentDigest = await digestOf(deps, workspace, draft.environment);
    const spec = specs.fill(draft, await check(deps, draft.source), environmentDigest);
    let number = 0;
    await change(deps, call.caller, automationId, async (before, now, tx) => {
      number = before.latestRevision + 1;
      const earlier = await claimKey(tx, call, `${automationId}/${number}`);
      if (earlier) {
        number = Number(earlier.split('/')[1]);
        return before;
      }
      const sourceSha256 = specs.sourceHash(spec.source);
      await store.insert(tx, workspace, { automationId, number, spec, note, sourceSha256, creatorId: user, createTime: now });
      return automation.revised(before, now);
    });
    return store.get(deps.db, workspace, automationId, number);
  },

  async getAutomationRevision({ automationId, number }, { caller }) {
    return store.get(deps.db, caller.workspace, automationId, number);
  },

  async listAutomationRevisions({ automationId, pageSize: asked, pageToken }, { caller }) {
    const query = { automationId };
    const size = pageSize(asked);
    const before = decodePage<number>(pageToken, query);
    await automations.get(deps.db, caller.workspace, automationId, 'automationId');
    const found = await store.list(deps.db, caller.workspace, automationId, before, size + 1);
    const { items, last } = cutPage(found, size, AutomationRevision);
    return { revisions: items, nextPageToken: last ? encodePage(query, last.number) : '' };
  },

  async diffAutomationRevisions({ automationId, from, to }, { caller }) {
    const read = async (number: number) => {
      const { spec } = await store.get(deps.db, caller.workspace, automationId, number);
      return spec ?? AutomationSpec.fromPartial({});
    };
    const [older, newer] = await Promise.all([read(from), read(to)]);
    return {
      sourceDiff: unifiedDiff(older.source, newer.source, `revision ${from}`, `revision ${to}`),
      settings: specs.settingDiffs(older, newer),
    };
  },

  async validateSource({ source }) {
    return check(deps, source);
  },
});

// What the name stands for now. Its build may go on: executions wait for it.
async function digestOf({ db }: Deps, workspace: string, name: string): Promise<string> {
  if (name === '' || name === BASE) return '';
  const found = await environments.named(db, workspace, name);
  if (!found) throw unknownEnvironment(name);
  mustNotHaveFailed(name, found.state);
  return found.digest;
}

// What an automation server finds in the source.
async function check({ runner }: Deps, source: string) {
  return runner.validateSource({ source }).catch((error) => {
    if (error instanceof Fault && error.reason === 'OVERLOADED') throw error;
    throw unavailable('no automation server can check the source now', 1000, error);
  });
}
