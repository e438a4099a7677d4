// ServerService: where automation servers announce themselves.
import type { ServerServiceService } from '#gen/millrace/executions/v1/server_service.ts';
import type { Bus } from '#platform/bus.ts';
import type { Db } from '#platform/db.ts';
import { invalid } from '#platform/errors.ts';
import type { Handlers } from '#platform/handlers.ts';
import { toBytes } from '#platform/id.ts';
import * as notices from '../engine/notices.ts';
import * as servers from '../servers.ts';

const AGAIN_MS = 10_000;
const ADDRESS = /^(\[[0-9a-fA-F:]+\]|[^\s:/]+):\d{1,5}$/;

export const handlers = ({ db, bus }: { db: Db; bus: Pick<Bus, 'notify'> }): Handlers<ServerServiceService> => ({
  async registerServer({ serverId, ...server }) {
    const id = toBytes('server', serverId, 'server_id');
    if (!ADDRESS.test(server.endpoint)) throw invalid('endpoint', 'must be host:port');
    if (await servers.register(db, { ...server, id })) bus.notify(notices.servers);
    return { againAfterMs: AGAIN_MS };
  },
});
