// Webhooks: addresses that others call to have automations run, each request once; and addresses that are told of events.
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { HookDeliveryServiceService } from '#gen/millrace/webhooks/v1/hook_delivery_service.ts';
import { HookServiceService } from '#gen/millrace/webhooks/v1/hook_service.ts';
import { ReceiverServiceService } from '#gen/millrace/webhooks/v1/receiver_service.ts';
import { EventSubscriptionServiceService } from '#gen/millrace/webhooks/v1/subscription_service.ts';
import { egressSettings, openEgress } from '#platform/egress.ts';
import type { Module } from '#platform/module.ts';
import { every } from '#platform/pause.ts';
import { settings } from './config.ts';
import { consumers } from './events.ts';
import { openExpressions } from './expressions.ts';
import * as deliveries from './handlers/deliveries.ts';
import * as hooks from './handlers/hooks.ts';
import * as receiver from './handlers/receiver.ts';
import * as subscriptions from './handlers/subscriptions.ts';
import { sweep as sweepHooks } from './hook-system.ts';
import { openIntake } from './intake.ts';
import { openInterest } from './interest.ts';
import { openRefusals } from './refusals.ts';
import { openVault } from './secrets.ts';
import { openSender } from './sender.ts';
import { retryStarts } from './start.ts';
import { sweep as sweepEvents } from './subscription-system.ts';
import { usersDisabled } from './suspend.ts';

const SWEEP_MS = 10 * 60_000;

export const module: Module = {
  name: 'webhooks',
  migrations: new URL('./migrations/', import.meta.url),
  async start({ db, bus, clock, log, client, contract, serve, settings: read }) {
    const { keySecret, retentionDays, maxHooks, maxSubscriptions } = read(settings);
    const executions = client(ExecutionServiceService, 'executions');
    const expressions = openExpressions();
    const vault = openVault(keySecret);
    const refusals = openRefusals(db, log);
    const deps = { db, clock, log, executions, expressions, vault, refusals, maxHooks, maxSubscriptions };
    const retries = retryStarts(deps);
    const egress = openEgress(read(egressSettings));
    const sender = openSender({ db, vault, egress, clock, log });
    const interest = openInterest(db, log);
    const changed = async () => {
      await interest.look();
      sender.wake();
    };
    serve(HookServiceService, hooks.handlers(deps));
    serve(HookDeliveryServiceService, deliveries.handlers(deps));
    serve(ReceiverServiceService, receiver.handlers(openIntake(deps)));
    serve(EventSubscriptionServiceService, subscriptions.handlers({ ...deps, egress, changed }));
    const sweep = () => Promise.all([sweepHooks(db, retentionDays), sweepEvents(db, retentionDays)]);
    const stops = [
      ...consumers({ db, registry: contract.registry, interest, wake: sender.wake }).map(bus.consume),
      bus.consume(usersDisabled(db)),
      ...[retries.stop, sender.stop, interest.stop, refusals.stop, expressions.stop],
      every(SWEEP_MS, sweep, log),
    ];
    return async () => void (await Promise.all(stops.map((stop) => stop())));
  },
};
