// Schedules: automations that run again and again, by the clock.
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { ScheduleServiceService } from '#gen/millrace/schedules/v1/schedule_service.ts';
import { ScheduleTickServiceService } from '#gen/millrace/schedules/v1/tick_service.ts';
import type { Module } from '#platform/module.ts';
import { every } from '#platform/pause.ts';
import { settings } from './config.ts';
import * as events from './events.ts';
import { followTicks } from './follow.ts';
import { handlers } from './handlers/schedules.ts';
import { handlers as tickHandlers } from './handlers/ticks.ts';
import { forgetTicks } from './schedule-system.ts';
import { runScheduler } from './scheduler.ts';
import { usersDisabled } from './suspend.ts';

const FORGET_MS = 60_000;

export const module: Module = {
  name: 'schedules',
  migrations: new URL('./migrations/', import.meta.url),
  async start({ db, bus, log, client, serve, settings: read }) {
    const limits = read(settings);
    const executions = client(ExecutionServiceService, 'executions');
    const ticks = followTicks({ db, log, executions });
    const scheduler = runScheduler({ db, log, settings: limits, claimed: ticks.wake });
    const stops = [
      bus.consume(events.executionsEnded(db, ticks.wake)),
      bus.consume(usersDisabled(db)),
      scheduler.stop,
      ticks.stop,
      every(FORGET_MS, () => forgetTicks(db, limits.tickDays), log),
    ];
    const wake = () => {
      scheduler.wake();
      ticks.wake();
    };
    serve(ScheduleServiceService, handlers({ db, settings: limits, wake }));
    serve(ScheduleTickServiceService, tickHandlers({ db }));
    return async () => void (await Promise.all(stops.map((stop) => stop())));
  },
};
