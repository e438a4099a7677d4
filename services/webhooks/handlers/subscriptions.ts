// handlers/subscriptions.ts: the methods of EventSubscriptionService, in the contract's order.
import { EventDelivery, EventSubscription } from '#gen/millrace/webhooks/v1/subscription.ts';
import type { EventSubscriptionServiceService } from '#gen/millrace/webhooks/v1/subscription_service.ts';
import type { Db } from '#platform/db.ts';
import type { Egress } from '#platform/egress.ts';
import type { Caller, Handlers } from '#platform/handlers.ts';
import { newId, toBytes } from '#platform/id.ts';
import { claimKey } from '#platform/idempotency.ts';
import { maskedFields } from '#platform/mask.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import { secondsOf } from '../hook.ts';
import { faults } from '../intake.ts';
import * as secrets from '../secrets.ts';
import * as deliveries from '../store/event-deliveries.ts';
import * as subscriptions from '../store/subscriptions.ts';
import * as subscription from '../subscription.ts';

export interface Deps {
  db: Db;
  vault: secrets.Vault;
  egress: Pick<Egress, 'check'>;
  clock: () => Date;
  maxSubscriptions: number;
  changed(): Promise<void>; // somebody subscribed, or something is to be sent
}

const OVERLAP_SECONDS = 24 * 3600;

export const handlers = ({ db, vault, egress, clock, maxSubscriptions: max, changed }: Deps): Handlers<EventSubscriptionServiceService> => {
  const checkUrl = (url: string): void => void egress.check(url);

  async function change(
    caller: Caller,
    id: string,
    how: (before: EventSubscription, now: Date) => EventSubscription,
  ): Promise<EventSubscription> {
    const after = await db.transaction(async (tx) => {
      const before = await subscriptions.lock(tx, caller.workspace, id);
      const next = how(before, clock());
      if (next !== before) await subscriptions.save(tx, caller.workspace, before, next);
      return next;
    });
    await changed();
    return after;
  }

  return {
    async createEventSubscription({ subscription: draft = EventSubscription.fromPartial({}) }, call) {
      const { workspace, user, scopes } = call.caller;
      const made = subscription.accept(draft, checkUrl, user, newId('subscription'), clock());
      subscription.mustRead(scopes, made);
      const secret = secrets.make();
      const kept = await db.transaction(async (tx) => {
        const earlier = await claimKey(tx, call, made.id);
        if (earlier) return subscriptions.get(tx, workspace, earlier);
        if ((await subscriptions.count(tx, workspace)) >= max)
          throw faults.failedPrecondition(
            'TOO_MANY_SUBSCRIPTIONS',
            `the workspace has ${max} subscriptions, as many as it may: delete one`,
            {
              max: `${max}`,
            },
          );
        await subscriptions.insert(tx, workspace, made, vault.seal(toBytes('subscription', made.id), secret));
        return { ...made, secret };
      });
      await changed();
      return kept;
    },

    async getEventSubscription({ id }, { caller }) {
      return subscriptions.get(db, caller.workspace, id);
    },

    async listEventSubscriptions({ pageSize: asked, pageToken }, { caller }) {
      const size = pageSize(asked);
      const after = decodePage<string>(pageToken, 'subscriptions');
      const found = await subscriptions.list(db, caller.workspace, after, size + 1);
      const { items, last } = cutPage(found, size, EventSubscription);
      return { subscriptions: items, nextPageToken: last ? encodePage('subscriptions', last.id) : '' };
    },

    async updateEventSubscription({ id, subscription: draft = EventSubscription.fromPartial({}), updateMask }, { caller }) {
      const fields = maskedFields(updateMask, draft, subscription.UPDATABLE, EventSubscription);
      return change(caller, id, (before, now) => {
        const after = subscription.update(before, draft, fields, checkUrl, now);
        subscription.mustRead(caller.scopes, after);
        return after;
      });
    },

    async deleteEventSubscription({ id }, { caller }) {
      await db.transaction((tx) => subscriptions.remove(tx, caller.workspace, id));
      while (await deliveries.removeSome(db, caller.workspace, id));
      return {};
    },

    async rotateEventSubscriptionSecret({ id, overlap }, { caller }) {
      const secret = secrets.make();
      return db.transaction(async (tx) => {
        const before = await subscriptions.lock(tx, caller.workspace, id);
        const after = subscription.rotated(before, secondsOf(overlap, OVERLAP_SECONDS), clock());
        await subscriptions.save(tx, caller.workspace, before, after, vault.seal(toBytes('subscription', id), secret));
        return { ...after, secret };
      });
    },

    async enableEventSubscription({ id }, { caller }) {
      return change(caller, id, (before, now) => {
        subscription.mustRead(caller.scopes, before);
        return subscription.enable(before, now);
      });
    },

    async disableEventSubscription({ id }, { caller }) {
      return change(caller, id, subscription.disable);
    },

    async getEventDelivery({ subscriptionId, id }, { caller }) {
      return deliveries.get(db, caller.workspace, subscriptionId, id);
    },

    async listEventDeliveries({ subscriptionId, states, pageSize: asked, pageToken }, { caller }) {
      const query = { subscriptionId, states };
      const size = pageSize(asked);
      const before = decodePage<string>(pageToken, query);
      await subscriptions.get(db, caller.workspace, subscriptionId, 'subscriptionId');
      const found = await deliveries.list(db, caller.workspace, subscriptionId, states, before, size + 1);
      const { items, last } = cutPage(found, size, EventDelivery);
      return { deliveries: items, nextPageToken: last ? encodePage(query, last.id) : '' };
    },

    async redriveEventDelivery({ subscriptionId, id }, { caller }) {
      await deliveries.redrive(db, caller.workspace, subscriptionId, id);
      await changed();
      return deliveries.get(db, caller.workspace, subscriptionId, id);
    },

    async discardEventDelivery({ subscriptionId, id }, { caller }) {
      await deliveries.discard(db, caller.workspace, subscriptionId, id);
      return deliveries.get(db, caller.workspace, subscriptionId, id);
    },
  };
};
