// Tasks: work for people, and for an automation where one is bound to the task.
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { TaskServiceService } from '#gen/millrace/tasks/v1/task_service.ts';
import type { Module } from '#platform/module.ts';
import { every } from '#platform/pause.ts';
import * as events from './events.ts';
import { handlers } from './handlers.ts';
import { followRuns } from './runs.ts';
import { forgetDeletions } from './task-system.ts';

const FORGET_MS = 60_000;

export const module: Module = {
  name: 'tasks',
  migrations: new URL('./migrations/', import.meta.url),
  async start({ db, bus, clock, log, client, serve }) {
    const executions = client(ExecutionServiceService, 'executions');
    const deps = { db, bus, clock, log, executions };
    const runs = followRuns(deps);
    const stops = [bus.consume(events.executionsEnded(db, runs.wake)), runs.stop, every(FORGET_MS, () => forgetDeletions(db), log)];
    serve(TaskServiceService, handlers(deps));
    return async () => void (await Promise.all(stops.map((stop) => stop())));
  },
};
