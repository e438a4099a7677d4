// QuotaService: how much workspaces may use, and use.
import { type Quota, QuotaLimits } from '#gen/millrace/executions/v1/quota.ts';
import type { QuotaServiceService, WorkspaceQuotas } from '#gen/millrace/executions/v1/quota_service.ts';
import type { Db, Pool } from '#platform/db.ts';
import type { Handlers } from '#platform/handlers.ts';
import { toBytes } from '#platform/id.ts';
import { maskedFields } from '#platform/mask.ts';
import * as store from '../quota-store.ts';
import { type Limits, messageOf, NAMES, over } from '../quotas.ts';
import { countWaiting } from '../store.ts';

interface Deps {
  db: Db;
  pool: Pool;
  defaults: Limits;
  clock(): Date;
}

export const handlers = ({ db, pool, defaults, clock }: Deps): Handlers<QuotaServiceService> => {
  async function look(workspace: Buffer): Promise<{ own: Partial<Limits>; quotas: Quota[] }> {
    const [{ own, used }, queued, running] = await Promise.all([
      store.standing(pool, workspace),
      countWaiting(pool, workspace),
      store.countRunning(pool, workspace),
    ]);
    const limits = over(own, defaults);
    return { own, quotas: NAMES.map((name) => messageOf(name, limits, { ...used, queued, running }, clock())) };
  }

  async function get(workspaceId: string): Promise<WorkspaceQuotas> {
    const { own, quotas } = await look(toBytes('workspace', workspaceId, 'workspace_id'));
    return { workspaceId, limits: limitsOf(own), quotas };
  }

  return {
    listQuotas: async (_, { caller }) => ({ quotas: (await look(toBytes('workspace', caller.workspace))).quotas }),
    getWorkspaceQuotas: async ({ workspaceId }) => get(workspaceId),

    async updateWorkspaceQuotas({ workspaceId, limits = QuotaLimits.fromPartial({}), updateMask }) {
      const workspace = toBytes('workspace', workspaceId, 'workspace_id');
      const fields = maskedFields(updateMask, limits, NAMES, QuotaLimits);
      const all = columnsOf(limits);
      await store.set(db, workspace, Object.fromEntries(fields.map((name) => [name, all[name]])));
      return get(workspaceId);
    },
  };
};

const limitsOf = (own: Partial<Limits>): QuotaLimits => ({
  queued: own.queued ?? undefined,
  running: own.running ?? undefined,
  logMibPerDay: own.log_mib_per_day ?? undefined,
  logMibPerMonth: own.log_mib_per_month ?? undefined,
  resultMib: own.result_mib ?? undefined,
  runMinutesPerMonth: own.run_minutes_per_month ?? undefined,
});

const columnsOf = (limits: QuotaLimits): Limits => ({
  queued: limits.queued ?? null,
  running: limits.running ?? null,
  log_mib_per_day: limits.logMibPerDay ?? null,
  log_mib_per_month: limits.logMibPerMonth ?? null,
  result_mib: limits.resultMib ?? null,
  run_minutes_per_month: limits.runMinutesPerMonth ?? null,
});
