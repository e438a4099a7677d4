// Executions: accepts work, tells how it goes, and lets it be watched. What runs it is the dispatcher, a module of its own on the same schema.
import { EgressGrantServiceService } from '#gen/millrace/automations/v1/egress_grant_service.ts';
import { EnvironmentBuildServiceService } from '#gen/millrace/automations/v1/environment_build_service.ts';
import { ControlServiceService } from '#gen/millrace/executions/v1/control_service.ts';
import { DeadLetterServiceService } from '#gen/millrace/executions/v1/dead_letter_service.ts';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { FleetServiceService } from '#gen/millrace/executions/v1/fleet_service.ts';
import { MaintenanceServiceService } from '#gen/millrace/executions/v1/maintenance_service.ts';
import { PlatformDeadLetterServiceService } from '#gen/millrace/executions/v1/platform_dead_letter_service.ts';
import { ProjectionServiceService } from '#gen/millrace/executions/v1/projection_service.ts';
import { QueueServiceService } from '#gen/millrace/executions/v1/queue_service.ts';
import { QuotaServiceService } from '#gen/millrace/executions/v1/quota_service.ts';
import { ServerServiceService } from '#gen/millrace/executions/v1/server_service.ts';
import type { Module } from '#platform/module.ts';
import { every } from '#platform/pause.ts';
import { openAccept } from './accept.ts';
import { startArtifacts } from './artifacts.ts';
import { openBulk } from './bulk.ts';
import { openCancel } from './cancel.ts';
import { settings } from './config.ts';
import { openCreate } from './create.ts';
import { openCrowd } from './crowd.ts';
import { openDeadEvents } from './dead-events.ts';
import { openDeadLetters } from './dead-letters.ts';
import { laneOf } from './engine/lanes.ts';
import * as notices from './engine/notices.ts';
import { openSpecs } from './engine/specs.ts';
import { hurry } from './engine/tickets.ts';
import { fleetOf } from './execution-system.ts';
import { openExplain } from './explain.ts';
import { openFleet } from './fleet.ts';
import * as control from './handlers/control.ts';
import * as dead from './handlers/dead-letters.ts';
import * as executions from './handlers/executions.ts';
import * as fleetHandlers from './handlers/fleet.ts';
import * as logs from './handlers/logs.ts';
import * as maintenance from './handlers/maintenance.ts';
import * as projection from './handlers/projection.ts';
import * as queues from './handlers/queues.ts';
import * as quotas from './handlers/quotas.ts';
import * as servers from './handlers/servers.ts';
import { openHearing } from './hearing.ts';
import { openHold } from './hold.ts';
import { tidyLimits } from './limits-system.ts';
import { openLoans } from './loans.ts';
import { openQuota } from './quota.ts';
import { defaultsOf, settings as quotaSettings } from './quota-config.ts';
import { openQuotaView } from './quota-view.ts';
import { openReads } from './reads.ts';
import { reconcile } from './reconcile-system.ts';
import { startRetention } from './retention.ts';
import { openRevisions } from './revisions.ts';
import { countWaiting } from './store.ts';
import { openTails } from './tail.ts';
import { cancelReplaced, tidyUnique } from './unique-system.ts';
import { mendUsages } from './usage-system.ts';
import { openWatch } from './watch.ts';

const WRITERS = 2; // one commit in flight, and one that is being replaced
const READERS = 8;
const KEEPERS = 2;
const USAGE_MS = 3_600_000;

export const module: Module = {
  name: 'executions',
  migrations: new URL('./migrations/', import.meta.url),

  async start({ db, bus, relay, log, clock, client, config, hot, serve, check, settings: read }) {
    const { maxWaiting, keepAliveMs, lookMs, reconcileMs } = read(settings);
    const defaults = defaultsOf(maxWaiting, read(quotaSettings));
    const pool = hot(READERS);
    const waiting = openQuota({ max: maxWaiting, count: (workspace) => countWaiting(pool, workspace) });
    const keepers = hot(KEEPERS);
    const fleet = openFleet(() => fleetOf(pool));
    const revisions = openRevisions(pool);
    const reads = openReads({ pool, fleet, revisions });
    const hearing = openHearing(bus);
    const tails = openTails({ pool, bus: hearing, everyMs: keepAliveMs });
    const cancel = openCancel({ db, bus, relay });
    const makeRoom = openCrowd({ pool: keepers, cancel, log });
    const unique = { pool: keepers, cancel, log };
    const loans = openLoans(bus);
    const specs = openSpecs(pool);
    const accept = openAccept({
      pool: hot(WRITERS),
      revisions,
      lender: { loans, specs },
      admit: openQuotaView({ pool, defaults, clock, waiting }),
      laneOf: (workspace, queue, selector) => laneOf(db, workspace, queue, selector),
      accepted(lanes, hasTimers, crowded, replaced, fresh) {
        hurry(bus, lanes, fresh);
        relay.kick();
        if (hasTimers) bus.notify(notices.timers);
        for (const key of crowded) makeRoom(key).catch((error) => log.warn({ error, key }, 'older executions make room later'));
        for (const one of replaced)
          cancelReplaced(unique, one).catch((error) => log.warn({ error }, 'a replaced execution is cancelled later'));
      },
    });
    const create = openCreate({ db, pool, reads, accept });

    serve(ExecutionServiceService, {
      ...executions.handlers({ pool, bus: hearing, reads, create, cancel, lookMs }),
      ...logs.handlers({ bus: hearing, log, reads, tails, keepAliveMs }),
    });
    serve(
      ControlServiceService,
      control.handlers({
        reads,
        explain: openExplain({
          pool,
          reads,
          fleet: () => fleetOf(pool),
          maxRunning: defaults.running,
          specs,
          builds: () => client(EnvironmentBuildServiceService, 'automations'),
          grants: () => client(EgressGrantServiceService, 'automations'),
        }),
        hold: openHold({ db, bus, specs }),
        bulk: openBulk({ pool, create, cancel }),
        watch: openWatch({ pool, message: reads.message, everyMs: lookMs }),
        keepAliveMs,
      }),
    );
    serve(QueueServiceService, queues.handlers({ db, pool, cancel, ring: (lanes) => hurry(bus, lanes) }));
    const letters = openDeadLetters({ pool, reads, create, events: openDeadEvents({ client, config }) });
    serve(DeadLetterServiceService, dead.handlers({ letters }));
    serve(PlatformDeadLetterServiceService, dead.platformHandlers({ letters }));
    serve(QuotaServiceService, quotas.handlers({ db, pool, defaults, clock }));
    serve(MaintenanceServiceService, maintenance.handlers({ db }));
    serve(ProjectionServiceService, projection.handlers({ db, ring: (lanes) => hurry(bus, lanes) }));
    serve(ServerServiceService, servers.handlers({ db, bus }));
    serve(FleetServiceService, fleetHandlers.handlers({ pool, bus }));
    let mends = 0;
    const stops = [
      startArtifacts({ db, log, serve, check, read, pool: keepers, reads }),
      async () => hearing.stop(),
      async () => loans.stop(),
      every(reconcileMs, () => reconcile({ pool: keepers, bus, log }), log),
      every(reconcileMs, () => tidyLimits({ pool: keepers, bus, makeRoom }), log),
      every(reconcileMs, () => tidyUnique(unique), log),
      every(USAGE_MS, async () => mends++ > 0 && mendUsages({ pool: keepers, now: clock(), log }), log), // not at the start, where there is much to do
      startRetention({ pool: keepers, payloadsMs: reconcileMs, log, clock, read }),
    ];
    return async () => {
      await Promise.all(stops.map((stop) => stop()));
    };
  },
};
