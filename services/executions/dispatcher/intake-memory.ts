// What a claim knows of its execution. When the first that is told of a first attempt is its result, that is written in one round trip: the
// commit begins with the fence, compares, and writes nothing when anything is not as the claim left it.
import { LRUCache } from 'lru-cache';
import type { Claimed } from '../engine/claims.ts';
import { type Clock, openClock } from '../engine/clock.ts';
import type { Told } from '../engine/ended.ts';
import type { Running } from '../engine/finish.ts';
import { hex } from '../engine/sql.ts';
import type { Report } from './report.ts';

export interface Recalled {
  report: Report;
  row: Running;
  told: Told;
}
export interface IntakeMemory {
  clock: Clock;
  keep(claimed: Claimed): void; // after the claim's commit
  recall(reports: readonly Report[]): Recalled[] | undefined; // once; undefined unless all of them are known
}

const MOST = 20_000;

export function openIntakeMemory(): IntakeMemory {
  const known = new LRUCache<string, Omit<Recalled, 'report'>>({ max: MOST });
  const clock = openClock();

  return {
    clock,
    keep(claimed) {
      const { row, claimId } = claimed;
      if (row.attempt === 1 && row.version === 1 && row.limit_key === null)
        known.set(hex(claimId), { row: runningOf(claimed), told: toldOf(claimed) });
    },
    recall(reports) {
      const now = clock.now();
      const found = reports.map((report) => {
        const one = known.get(hex(report.claimId));
        known.delete(hex(report.claimId));
        return one && now && report.result && !report.given && one.row.server.equals(report.server)
          ? { report, told: one.told, row: { ...one.row, now } }
          : undefined;
      });
      return found.every((one) => one !== undefined) ? found : undefined;
    },
  };
}

const runningOf = ({ row, workspace, claimId, server, expireTime }: Claimed): Running => ({
  execution: row.execution,
  workspace,
  claim_id: claimId,
  attempt: row.attempt,
  losses: row.losses,
  server,
  lane: row.lane,
  priority: row.priority,
  limit_key: null,
  state: 'RUNNING',
  started: 0,
  claim_time: row.now,
  expire_time: expireTime,
  line_count: 0,
  progress_fraction: null,
  progress_message: null,
  now: row.now,
});

const toldOf = ({ row, workspace }: Claimed): Told => ({
  id: row.execution,
  workspace,
  automation: row.automation,
  revision: row.revision,
  state: 'QUEUED',
  version: row.version,
  creator: row.creator,
  retry_of: row.retry_of,
  labels: row.labels,
  priority: row.priority,
  limit_key: null,
  error: null,
  attempt_count: 0,
  schedule_time: row.schedule_time,
  create_time: row.create_time,
  start_time: null,
  end_time: null,
  progress_fraction: null,
  progress_message: null,
});
