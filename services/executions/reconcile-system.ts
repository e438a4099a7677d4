import type { Bus } from '#platform/bus.ts';
import type { Pool } from '#platform/db.ts';
import type { Logger } from '#platform/log.ts';

export const reconcile = async (_: { pool: Pool; bus: Bus; log: Logger }): Promise<void> => undefined;
