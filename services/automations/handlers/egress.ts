// handlers/egress.ts: the methods of EgressPolicyService and EgressGrantService.
import type { EgressGrantServiceService } from '#gen/millrace/automations/v1/egress_grant_service.ts';
import { EgressPolicy } from '#gen/millrace/automations/v1/egress_policy.ts';
import type { EgressPolicyServiceService } from '#gen/millrace/automations/v1/egress_policy_service.ts';
import type { Db } from '#platform/db.ts';
import type { Handlers } from '#platform/handlers.ts';
import { maskedFields } from '#platform/mask.ts';
import * as egress from '../egress.ts';
import * as store from '../store/egress.ts';

interface Deps {
  db: Db;
  clock: () => Date;
}

export const egressPolicyHandlers = ({ db, clock }: Deps): Handlers<EgressPolicyServiceService> => ({
  async getEgressPolicy(_, { caller }) {
    return (await store.get(db, caller.workspace)) ?? egress.NONE;
  },

  async updateEgressPolicy({ egressPolicy: draft = EgressPolicy.fromPartial({}), updateMask }, { caller }) {
    const fields = maskedFields(updateMask, draft, egress.UPDATABLE, EgressPolicy);
    return db.transaction(async (tx) => {
      const now = clock();
      const before = await store.lock(tx, caller.workspace, { ...egress.NONE, updaterId: caller.user, updateTime: now });
      const after = egress.update(before, draft, fields, caller.user, now);
      await store.save(tx, caller.workspace, after);
      return after;
    });
  },
});

export const egressGrantHandlers = ({ db }: Pick<Deps, 'db'>): Handlers<EgressGrantServiceService> => ({
  async resolveEgressGrants({ workspaceIds }) {
    const policies = await Promise.all([...new Set(workspaceIds)].map(async (id) => [id, await store.get(db, id)] as const));
    const known = new Map(policies);
    return { policies: workspaceIds.map((id) => known.get(id) ?? egress.NONE) };
  },
});
