// MaintenanceService: halts executions, of a workspace or of everything.
import {
  type Maintenance,
  type MaintenanceServiceService,
  Maintenance_Mode as Mode,
} from '#gen/millrace/executions/v1/maintenance_service.ts';
import type { Db } from '#platform/db.ts';
import type { Caller, Handlers } from '#platform/handlers.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { EVERYONE } from '../engine/gates.ts';
import * as store from '../maintenance-store.ts';

export const handlers = ({ db }: { db: Db }): Handlers<MaintenanceServiceService> => {
  async function get(workspace: Buffer): Promise<Maintenance> {
    const row = await store.get(db, workspace);
    if (!row) return { mode: Mode.NORMAL, reason: '', setterId: '', setTime: undefined };
    return { mode: Mode[row.mode], reason: row.reason, setterId: fromBytes('user', row.setter), setTime: row.set_time };
  }

  async function set(workspace: Buffer, mode: Mode, reason: string, caller: Caller): Promise<Maintenance> {
    if (mode === Mode.NORMAL) await store.remove(db, workspace);
    else await store.set(db, workspace, mode === Mode.STOPPED ? 'STOPPED' : 'MAINTENANCE', reason, toBytes('user', caller.user));
    return get(workspace);
  }

  return {
    getMaintenance: async (_, { caller }) => get(toBytes('workspace', caller.workspace)),
    setMaintenance: async ({ mode, reason }, { caller }) => set(toBytes('workspace', caller.workspace), mode, reason, caller),
    getPlatformMaintenance: async () => get(EVERYONE),
    setPlatformMaintenance: async ({ mode, reason }, { caller }) => set(EVERYONE, mode, reason, caller),
  };
};
