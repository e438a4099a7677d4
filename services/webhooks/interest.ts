// interest.ts: where anybody has subscribed to events, looked up every second, so that events of all others are passed over.
import type { Db } from '#platform/db.ts';
import type { Logger } from '#platform/log.ts';
import { every } from '#platform/pause.ts';
import type { Interest } from './events.ts';
import * as system from './subscription-system.ts';

const REFRESH_MS = 1000;

// Until the first look, everything is of interest.
export function openInterest(db: Db, log: Logger): Interest & { look(): Promise<void>; stop(): Promise<void> } {
  let known: Set<string> | undefined;
  const look = async () => {
    known = await system.workspaces(db);
  };
  return {
    has: (workspace) => known?.has(workspace) ?? true,
    isNone: () => known?.size === 0,
    look,
    stop: every(REFRESH_MS, look, log),
  };
}
