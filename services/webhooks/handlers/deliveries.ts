// handlers/deliveries.ts: the methods of HookDeliveryService, in the contract's order.
import { HookDelivery } from '#gen/millrace/webhooks/v1/hook_delivery.ts';
import type { HookDeliveryServiceService } from '#gen/millrace/webhooks/v1/hook_delivery_service.ts';
import type { Handlers } from '#platform/handlers.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import type { Deps as IntakeDeps } from '../intake.ts';
import { redeliver } from '../redeliver.ts';
import * as deliveries from '../store/deliveries.ts';
import * as hooks from '../store/hooks.ts';
import { mustRun } from './hooks.ts';

export const handlers = (deps: IntakeDeps): Handlers<HookDeliveryServiceService> => ({
  async getHookDelivery({ hookId, id }, { caller }) {
    return deliveries.get(deps.db, caller.workspace, hookId, id);
  },

  async listHookDeliveries({ hookId, states, pageSize: asked, pageToken }, { caller }) {
    const query = { hookId, states };
    const size = pageSize(asked);
    const before = decodePage<string>(pageToken, query);
    await hooks.get(deps.db, caller.workspace, hookId, 'hookId');
    const { items, last } = cutPage(await deliveries.list(deps.db, caller.workspace, hookId, states, before, size + 1), size, HookDelivery);
    return { deliveries: items, nextPageToken: last ? encodePage(query, last.id) : '' };
  },

  async redeliverHookDelivery({ hookId, id }, call) {
    mustRun(call.caller);
    return redeliver(deps, hookId, id, call);
  },
});
