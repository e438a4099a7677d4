// FleetService: the automation servers, and which of them take nothing new.
import type { FleetServiceService } from '#gen/millrace/executions/v1/fleet_service.ts';
import type { Server } from '#gen/millrace/executions/v1/server.ts';
import type { Bus } from '#platform/bus.ts';
import type { Pool } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import type { Handlers } from '#platform/handlers.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import * as notices from '../engine/notices.ts';
import * as store from '../fleet-store.ts';
import { labelsOf } from '../selector.ts';

export const handlers = ({ pool, bus }: { pool: Pool; bus: Pick<Bus, 'notify'> }): Handlers<FleetServiceService> => {
  async function get(id: string): Promise<Server> {
    const [row] = await store.list(pool, toBytes('server', id));
    if (!row) throw notFound('server', id);
    return messageOf(row);
  }

  async function setDrained(id: string, drained: boolean): Promise<Server> {
    await store.setDrained(pool, toBytes('server', id), drained);
    bus.notify(notices.servers);
    return get(id);
  }

  return {
    listServers: async () => ({ servers: (await store.list(pool)).map(messageOf) }),
    getServer: async ({ id }) => get(id),
    drainServer: async ({ id }) => setDrained(id, true),
    resumeServer: async ({ id }) => setDrained(id, false),
  };
};

const messageOf = (row: store.ServerRow): Server => ({
  id: fromBytes('server', row.id),
  labels: labelsOf(row.labels) ?? {},
  slots: row.slots,
  runningCount: row.running,
  credits: row.takes === 1 ? Math.max(0, row.slots - row.running) : 0,
  draining: row.drained === 1,
  stopping: row.draining === 1,
  sandboxTier: row.tier,
  minimumTier: row.minimum_tier,
  registerTime: row.register_time,
  seenTime: row.seen_time,
});
