// Brings limits in line with what is published: their size, and what becomes of those that find no place.
import { lockLimits, resize } from './slots.ts';
import { type Connection, rows } from './sql.ts';

export interface Wanted {
  limit_key: string;
  max: number;
  policy: string;
}

const MAX = "CAST(JSON_EXTRACT(a.concurrency, '$.max') AS SIGNED)";
const POLICY = "JSON_UNQUOTE(JSON_EXTRACT(a.concurrency, '$.policy'))";

// The limits that differ from what their automation has.
export const DRIFTED = `SELECT l.limit_key, ${MAX} AS max, ${POLICY} AS policy FROM limits l JOIN automations a ON a.id = l.automation
  WHERE a.concurrency IS NOT NULL AND (l.max <> ${MAX} OR l.policy <> ${POLICY} OR l.policy IS NULL)`;

// Inside the caller's transaction. Answers the lanes to ring after the commit.
export async function resizeSome(connection: Connection, wanted: readonly Wanted[]): Promise<Set<number>> {
  const limits = await lockLimits(
    connection,
    wanted.map(({ limit_key }) => limit_key),
  );
  const lanes = new Set<number>();
  for (const { limit_key, max, policy } of wanted) {
    const limit = limits.get(limit_key);
    if (!limit) continue; // nobody used it, and it was tidied away
    const resized = await resize(connection, limit, max, policy);
    await rows(connection, resized.statements);
    for (const lane of resized.lanes) lanes.add(lane);
  }
  return lanes;
}
