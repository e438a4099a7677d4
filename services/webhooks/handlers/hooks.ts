// handlers/hooks.ts: the methods of HookService, in the contract's order.
import { Hook } from '#gen/millrace/webhooks/v1/hook.ts';
import type { HookServiceService } from '#gen/millrace/webhooks/v1/hook_service.ts';
import type { Db } from '#platform/db.ts';
import { permissionDenied } from '#platform/errors.ts';
import type { Caller, Handlers } from '#platform/handlers.ts';
import { newId, toBytes } from '#platform/id.ts';
import { claimKey } from '#platform/idempotency.ts';
import { maskedFields } from '#platform/mask.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import type { Expressions } from '../expressions.ts';
import * as hook from '../hook.ts';
import { faults } from '../intake.ts';
import * as secrets from '../secrets.ts';
import * as deliveries from '../store/deliveries.ts';
import * as hooks from '../store/hooks.ts';

export interface Deps {
  db: Db;
  vault: secrets.Vault;
  expressions: Expressions;
  clock: () => Date;
  maxHooks: number;
}

const OVERLAP_SECONDS = 24 * 3600;

export const handlers = ({ db, vault, expressions, clock, maxHooks: max }: Deps): Handlers<HookServiceService> => {
  async function checkExpressions({ filter, input }: Hook): Promise<void> {
    for (const [field, expression] of [
      ['hook.filter', filter],
      ['hook.input', input.startsWith('/') ? '' : input],
    ] as const) {
      const why = expression === '' ? undefined : await expressions.faultOf(expression);
      if (why !== undefined)
        throw faults.invalid('EXPRESSION_INVALID', `${field} is no CEL expression: ${why}`, [{ field, description: why }]);
    }
  }

  const change = (caller: Caller, id: string, how: (before: Hook, now: Date) => Hook): Promise<Hook> =>
    db.transaction(async (tx) => {
      const before = await hooks.lock(tx, caller.workspace, id);
      const after = how(before, clock());
      if (after !== before) await hooks.save(tx, caller.workspace, before, after);
      return after;
    });

  return {
    async createHook({ hook: draft = Hook.fromPartial({}) }, call) {
      const { workspace, user } = call.caller;
      mustRun(call.caller);
      const made = hook.accept(draft, user, newId('hook'), clock());
      await checkExpressions(made);
      const secret = draft.secret || secrets.make();
      const sealed = vault.seal(toBytes('hook', made.id), secret);
      return db.transaction(async (tx) => {
        const earlier = await claimKey(tx, call, made.id);
        if (earlier) return hooks.get(tx, workspace, earlier);
        if ((await hooks.count(tx, workspace)) >= max)
          throw faults.failedPrecondition('TOO_MANY_HOOKS', `the workspace has ${max} hooks, as many as it may: delete one`, {
            max: `${max}`,
          });
        await hooks.insert(tx, workspace, made, sealed);
        return { ...made, secret };
      });
    },

    async getHook({ id }, { caller }) {
      return hooks.get(db, caller.workspace, id);
    },

    async listHooks({ automationId, pageSize: asked, pageToken }, { caller }) {
      const query = { automationId };
      const size = pageSize(asked);
      const after = decodePage<string>(pageToken, query);
      const { items, last } = cutPage(await hooks.list(db, caller.workspace, automationId, after, size + 1), size, Hook);
      return { hooks: items, nextPageToken: last ? encodePage(query, last.id) : '' };
    },

    async updateHook({ id, hook: draft = Hook.fromPartial({}), updateMask }, { caller }) {
      const fields = maskedFields(updateMask, draft, hook.UPDATABLE, Hook);
      mustRun(caller);
      if (fields.includes('filter') || fields.includes('input')) {
        const { filter, input } = draft;
        await checkExpressions(
          Hook.fromPartial({ filter: fields.includes('filter') ? filter : '', input: fields.includes('input') ? input : '' }),
        );
      }
      return change(caller, id, (before, now) => hook.update(before, draft, fields, caller.user, now));
    },

    async deleteHook({ id }, { caller }) {
      await db.transaction((tx) => hooks.remove(tx, caller.workspace, id));
      while (await deliveries.removeSome(db, caller.workspace, id));
      return {};
    },

    async rotateHookSecret({ id, overlap, secret: given }, { caller }) {
      const secret = given || secrets.make();
      return db.transaction(async (tx) => {
        const before = await hooks.lock(tx, caller.workspace, id);
        const after = hook.rotated(before, hook.secondsOf(overlap, OVERLAP_SECONDS), clock());
        await hooks.save(tx, caller.workspace, before, after, vault.seal(toBytes('hook', id), secret));
        return { ...after, secret };
      });
    },

    async enableHook({ id }, { caller }) {
      mustRun(caller);
      return change(caller, id, (before, now) => hook.enable(before, caller.user, now));
    },

    async disableHook({ id }, { caller }) {
      return change(caller, id, hook.disable);
    },
  };
};

// Who makes executions start by a hook must be allowed to start them.
export function mustRun({ scopes }: Caller): void {
  if (scopes.has('executions.run')) return;
  throw permissionDenied('PERMISSION_MISSING', 'a hook starts executions: that needs the permission executions.run', {
    permission: 'executions.run',
  });
}
