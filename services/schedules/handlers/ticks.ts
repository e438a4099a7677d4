// The methods of ScheduleTickService, in the contract's order.
import { ScheduleTick } from '#gen/millrace/schedules/v1/schedule.ts';
import type { ScheduleTickServiceService } from '#gen/millrace/schedules/v1/tick_service.ts';
import type { Db } from '#platform/db.ts';
import type { Handlers } from '#platform/handlers.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import * as schedules from '../store/schedules.ts';
import * as ticks from '../store/ticks.ts';

export const handlers = ({ db }: { db: Db }): Handlers<ScheduleTickServiceService> => ({
  async listScheduleTicks({ scheduleId, pageSize: asked, pageToken, ...filter }, { caller }) {
    const query = { scheduleId, ...filter };
    const size = pageSize(asked);
    const after = decodePage<ticks.Position>(pageToken, query);
    await schedules.get(db, caller.workspace, scheduleId, 'scheduleId');
    const found = await ticks.list(db, caller.workspace, scheduleId, filter, after, size + 1);
    const { items, last } = cutPage(found, size, ScheduleTick);
    return { ticks: items, nextPageToken: last ? encodePage(query, ticks.positionOf(last)) : '' };
  },

  async getScheduleTick({ scheduleId, id }, { caller }) {
    return ticks.get(db, caller.workspace, scheduleId, id);
  },
});
