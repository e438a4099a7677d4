// The dispatcher: owns automation servers, hands executions to them, makes durable what they tell, and keeps the engine's clock.
import { EgressGrantServiceService } from '#gen/millrace/automations/v1/egress_grant_service.ts';
import { ValueServiceService } from '#gen/millrace/automations/v1/value_service.ts';
import { RunnerServiceService } from '#gen/millrace/runner/v1/runner_service.ts';
import type { Pool } from '#platform/db.ts';
import { fromBytes, newBytes } from '#platform/id.ts';
import type { Module } from '#platform/module.ts';
import { every, pause, repeat } from '#platform/pause.ts';
import { openCancel } from '../cancel.ts';
import { openCrowd } from '../crowd.ts';
import type { Ends, Leave } from '../engine/finish.ts';
import { decodeTaken } from '../engine/loans.ts';
import * as notices from '../engine/notices.ts';
import { openSpecs } from '../engine/specs.ts';
import { hex } from '../engine/sql.ts';
import { ring } from '../engine/tickets.ts';
import { limitOf, settings as quotas } from '../quota-config.ts';
import { openClaimer } from './claim.ts';
import { openCompactor } from './compact.ts';
import { settings } from './config.ts';
import { openEgress } from './egress.ts';
import { openGate } from './gate.ts';
import { openIntake, type Written } from './intake.ts';
import { openIntakeMemory } from './intake-memory.ts';
import { openLease } from './lease.ts';
import { openLender } from './lend.ts';
import * as metrics from './metrics.ts';
import { endLost, endOverdue, giveUpServers, stopHalted } from './overdue.ts';
import { openSelectors } from './selectors.ts';
import { forget } from './server-store.ts';
import { openServers } from './servers.ts';
import { measure, openSweep } from './sweep.ts';
import { openTimers } from './timers.ts';
import * as traces from './traces.ts';
import { unlessAway } from './transaction.ts';
import { openTurns } from './turns.ts';
import { openUsage } from './usage.ts';
import { openValues } from './values.ts';

const KEEPERS = 4;
const SWEEP_MS = 1000;
const LOOK_MS = 5000; // a notice that was lost costs so much
const MEASURE_MS = 10_000;
const FORGET_MS = 3_600_000;
const STOP_MS = 3000;

// A process that stands still in the middle of a transaction must not hold its locks for ever. MySQL has one limit for all that is idle: a connection that
// nobody used for so long is made anew.
const BOUNDED =
  'SET SESSION wait_timeout = 60 /*M!100300 , SESSION idle_transaction_timeout = 10 */ /*!80000 , SESSION wait_timeout = 10 */';

export const module: Module = {
  name: 'dispatcher',
  schema: 'executions',

  async start({ db, bus, log, relay, hot, settings: read, client, clientAt, check }) {
    const { leaseMs, serverLeaseMs, tickMs, quantum } = read(settings);
    const me = newBytes();
    const pools = { lease: bounded(hot(1)), claim: bounded(hot(1)), intake: bounded(hot(2)), keepers: bounded(hot(KEEPERS)) };
    const specs = openSpecs(pools.keepers);
    const maxRunning = limitOf(read(quotas).running);
    const gate = openGate(pools.keepers, maxRunning);
    const usage = openUsage({ pool: pools.keepers, log });
    const memory = openIntakeMemory();
    const compactor = openCompactor({ pool: pools.keepers, log });
    const ringAll = (lanes: Iterable<number>) => {
      if (sweep.isWithoutTickets()) selectors.keep(lanes);
      ring(bus, lanes);
    };
    const changed = (execution: Buffer, end?: Uint8Array) => bus.notify(notices.changed(fromBytes('execution', execution)), end);

    // What is told after executions have left running.
    function left(leaves: readonly Leave[], lanes: ReadonlySet<number>, ends?: Ends): void {
      for (const { row } of leaves) changed(row.execution, ends?.get(hex(row.execution))); // first: somebody waits for it
      ringAll(new Set([...lanes, ...gate.beside(leaves.map(({ row }) => row.lane))]));
      if (leaves.some(({ verdict }) => verdict.to !== 'QUEUED' && verdict.to !== 'RETRYING')) relay.kick();
      if (leaves.some(({ verdict }) => verdict.to === 'RETRYING')) timers.wake();
      usage.count(leaves);
      for (const { row, verdict } of leaves) {
        metrics.ended.inc({ to: verdict.to });
        if (row.started || verdict.to !== 'QUEUED') compactor.ended(row.execution, row.attempt);
      }
    }

    // Their servers may still have them: whoever owns those looks, and drops them.
    function leftOverdue(leaves: readonly Leave[], lanes: ReadonlySet<number>): void {
      left(leaves, lanes);
      for (const server of new Set(leaves.map(({ row }) => fromBytes('server', row.server)))) bus.notify(notices.cancel(server));
    }

    function written(all: readonly Written[], lanes: ReadonlySet<number>, ends: Ends): void {
      for (const { row, lines, bytes, isChanged, leave } of all) {
        if (lines > 0) {
          metrics.lines.inc(lines);
          compactor.wrote(row.execution, row.attempt, bytes);
          bus.notify(notices.logs(fromBytes('execution', row.execution)));
        }
        if (isChanged && !leave) changed(row.execution);
      }
      const leaves = all.flatMap(({ leave }) => leave ?? []);
      left(leaves, lanes, ends);
    }

    const intake = openIntake({ pool: pools.intake, log, owner: me, specs, memory, held: () => held(), written });
    const servers = openServers({
      me,
      pool: pools.keepers,
      log,
      leaseMs,
      serverLeaseMs,
      clientAt: (endpoint) => clientAt(RunnerServiceService, endpoint),
      report: intake.add,
      adopted(claims) {
        for (const { execution, attempt, line_count } of claims) if (line_count > 0) compactor.adopted(execution, attempt);
      },
      capacity: () => turns.capacity(),
      opened: () => lease.wake(),
      released: () => bus.notify(notices.servers),
    });
    const lease = openLease({
      pool: pools.lease,
      log,
      leaseMs,
      tickMs,
      tick: (connection, sent) => servers.tick(connection, sent, lease.contactMs()),
    });
    const mayAct = () => lease.isValid();
    const open = () => (mayAct() ? servers.sessions().filter((session) => session.isOpen()) : []);
    const held = () => open().reduce((sum, session) => sum + session.held(), 0);
    const selectors = openSelectors({
      pool: pools.keepers,
      bus,
      sessions: open,
      claim: (lanes, fresh) => claimer.claim(lanes, fresh),
      due: () => turns.capacity(),
      came: gate.load,
    });
    const sweep = openSweep({ pool: pools.keepers, bus, log, ours: selectors.offer });
    const claimer = openClaimer({
      pool: pools.claim,
      log,
      me,
      quantum,
      specs,
      gate,
      selectorOf: selectors.of,
      sessions: open,
      clock: memory.clock,
      keep: memory.keep,
      startWithValues: openValues({ automations: () => client(ValueServiceService, 'automations'), log }),
      startWithEgress: openEgress({ automations: () => client(EgressGrantServiceService, 'automations'), log }),
      ring: ringAll,
    });
    const turns = openTurns({
      bus,
      log,
      credits: () => open().reduce((sum, session) => sum + Math.max(0, session.credits()), 0),
      held,
      hasDue: selectors.hasDue,
      claim: selectors.claim,
    });
    let isStopping = false;
    const lender = openLender({ bus, me, sessions: open, isIdle: () => !isStopping && maxRunning === null && turns.isIdle() });
    const makeRoom = openCrowd({ pool: pools.keepers, cancel: openCancel({ db, bus, relay }), log });
    const timers = openTimers({
      pool: pools.keepers,
      log,
      specs,
      due(executions, lanes) {
        ringAll(lanes);
        for (const execution of executions) changed(execution);
      },
      crowded(keys) {
        for (const key of keys) makeRoom(key).catch((error) => log.warn({ error, key }, 'older executions make room later'));
      },
      ended(ending) {
        ringAll(ending.lanes);
        relay.kick();
        for (const execution of ending.ended) changed(Buffer.from(execution, 'hex'));
      },
    });

    async function keep(): Promise<void> {
      await endOverdue({ pool: pools.keepers, specs, left: leftOverdue });
      if (lease.contactMs() >= serverLeaseMs) {
        for (const id of await giveUpServers(
          pools.keepers,
          open().map(({ server }) => server.id),
        ))
          log.warn({ server: fromBytes('server', id) }, 'a server is lost');
      }
      await endLost({ pool: pools.keepers, specs, left });
      for (const server of await stopHalted(pools.keepers)) bus.notify(notices.cancel(fromBytes('server', server)));
    }

    async function ringAllWithWork(): Promise<void> {
      claimer.forgetMarks();
      await Promise.all([gate.load(), selectors.load()]);
      selectors.keep(await sweep.run());
      lender.lend();
    }

    const keeper = repeat(SWEEP_MS, () => unlessAway(keep()), log);
    const unfollow = [
      bus.onNotice(notices.servers, () => lease.wake()),
      bus.onNotice(notices.timers, () => timers.wake()),
      bus.onNotice(notices.cancel('*'), (_, subject) => {
        keeper.wake(); // a cancel whose grace is short may be over
        const id = subject.slice(notices.cancel('').length);
        const session = servers.sessions().find(({ server }) => fromBytes('server', server.id) === id);
        session?.look().catch((error) => log.warn({ error }, 'a cancel waits for the next look'));
      }),
    ];
    const leaveLent = bus.onNotice(notices.taken(fromBytes('dispatcher', me)), (data) => {
      const taken = decodeTaken(data);
      const starting = claimer.startTaken(taken).then(() => lender.used(taken.server, taken.fresh.length));
      starting.catch((error) => log.warn({ error }, 'what took lent places is found by the next look'));
    });
    const stops = [
      every(SWEEP_MS, () => unlessAway(ringAllWithWork()), log),
      every(LOOK_MS, () => unlessAway(servers.look()), log),
      every(MEASURE_MS, () => unlessAway(measure({ pool: pools.keepers })), log),
      every(FORGET_MS, () => unlessAway(forget(pools.keepers)), log),
    ];
    check('lease', async () => {
      if (!mayAct()) throw new Error('the lease is over: the database does not answer in time');
    });

    return async () => {
      isStopping = true; // what was lent until now may still be taken
      for (const stop of unfollow) stop();
      selectors.stop();
      await turns.stop();
      await lease.stop();
      await Promise.race([intake.idle(), pause(STOP_MS)]);
      intake.stop();
      await usage.stop().catch((error) => log.warn({ error }, 'what was used is counted again later'));
      await servers.stop().catch((error) => log.warn({ error }, 'the servers wait for the lease to end'));
      leaveLent();
      await Promise.all([timers.stop(), keeper.stop(), compactor.stop(), ...stops.map((stop) => stop())]);
      traces.endAll();
    };
  },
};

function bounded(pool: Pool): Pool {
  pool.pool.on('connection', (connection) => connection.query(BOUNDED));
  return pool;
}
