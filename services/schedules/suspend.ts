// suspend.ts: pauses the schedules of a user who was disabled: nothing runs for them any more.
import type { Consumer } from '#platform/consumer.ts';
import type { Db } from '#platform/db.ts';
import { emit } from '#platform/outbox.ts';
import * as events from './events.ts';
import * as schedule from './schedule.ts';
import * as system from './schedule-system.ts';
import * as schedules from './store/schedules.ts';

const REASON = 'the user it runs for was disabled: whoever changes what it runs, or makes another, runs it';

export const usersDisabled = (db: Db): Consumer => ({
  name: 'schedules-users',
  area: 'identity',
  types: ['user.disabled'],
  db,
  async handle(tx, { subject: userId }) {
    for (const { workspace, id } of await system.runFor(tx, userId)) {
      const before = await schedules.find(tx, workspace, id);
      if (before?.schedule.runAsId !== userId || before.schedule.pauseReason === REASON) continue;
      const after = schedule.pause(before, REASON, await schedules.clock(tx));
      await schedules.save(tx, workspace, before, after);
      await emit(tx, events.paused(after.schedule, { user: '', workspace }));
    }
  },
});
