// Webhooks: addresses that others call to have automations run, each request once.
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { HookDeliveryServiceService } from '#gen/millrace/webhooks/v1/hook_delivery_service.ts';
import { HookServiceService } from '#gen/millrace/webhooks/v1/hook_service.ts';
import { ReceiverServiceService } from '#gen/millrace/webhooks/v1/receiver_service.ts';
import type { Module } from '#platform/module.ts';
import { every } from '#platform/pause.ts';
import { settings } from './config.ts';
import { openExpressions } from './expressions.ts';
import * as deliveries from './handlers/deliveries.ts';
import * as hooks from './handlers/hooks.ts';
import * as receiver from './handlers/receiver.ts';
import { sweep } from './hook-system.ts';
import { openIntake } from './intake.ts';
import { openRefusals } from './refusals.ts';
import { openVault } from './secrets.ts';
import { retryStarts } from './start.ts';

const SWEEP_MS = 10 * 60_000;

export const module: Module = {
  name: 'webhooks',
  migrations: new URL('./migrations/', import.meta.url),
  async start({ db, clock, log, client, serve, settings: read }) {
    const { keySecret, retentionDays } = read(settings);
    const executions = client(ExecutionServiceService, 'executions');
    const expressions = openExpressions();
    const vault = openVault(keySecret);
    const refusals = openRefusals(db, log);
    const deps = { db, clock, log, executions, expressions, vault, refusals };
    const retries = retryStarts(deps);
    serve(HookServiceService, hooks.handlers(deps));
    serve(HookDeliveryServiceService, deliveries.handlers(deps));
    serve(ReceiverServiceService, receiver.handlers(openIntake(deps)));
    const stops = [retries.stop, refusals.stop, expressions.stop, every(SWEEP_MS, () => sweep(db, retentionDays), log)];
    return async () => void (await Promise.all(stops.map((stop) => stop())));
  },
};
