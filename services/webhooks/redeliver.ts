// redeliver.ts: delivers a kept request again, as the hook is now.
import type { HookDelivery } from '#gen/millrace/webhooks/v1/hook_delivery.ts';
import type { Call } from '#platform/handlers.ts';
import { claimKey } from '#platform/idempotency.ts';
import { type Deps, dueOf, faults, keptOf, mappingFailed } from './intake.ts';
import { route } from './routing.ts';
import { start } from './start.ts';
import * as deliveries from './store/deliveries.ts';
import * as hooks from './store/hooks.ts';

export async function redeliver(deps: Deps, hookId: string, id: string, call: Call): Promise<HookDelivery> {
  const { db } = deps;
  const { workspace } = call.caller;
  const hook = await hooks.get(db, workspace, hookId, 'hookId');
  const before = await deliveries.get(db, workspace, hookId, id);
  const request = await deliveries.request(db, workspace, hookId, id);
  if (!request)
    throw faults.failedPrecondition('DELIVERY_EMPTY', `nothing is kept of delivery ${id} that could be delivered again`, { id });
  if (hook.disabled) throw faults.failedPrecondition('HOOK_DISABLED', `hook ${hookId} is disabled: enable it first`, { id: hookId });
  const routed = await route(deps.expressions, hook, request);
  if (routed.state === 'FAILED') throw mappingFailed(routed.error);
  const from = { senderDeliveryId: before.senderDeliveryId, redeliveryOf: id };
  const kept = keptOf(workspace, hook, request, before.remoteAddress, routed, from);
  const earlier = await db.transaction(async (tx) => {
    const made = await claimKey(tx, call, kept.id);
    if (!made) await deliveries.insert(tx, kept);
    return made;
  });
  if (!earlier && routed.state === 'PENDING') await start(deps, dueOf(kept, routed.input));
  return deliveries.get(db, workspace, hookId, earlier ?? kept.id);
}
