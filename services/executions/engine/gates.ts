// What keeps a whole lane from starting anything: a paused queue, or a halt of its workspace or of everything.

// The workspace that stands for all of them.
export const EVERYONE = Buffer.alloc(16);
const ALL = `x'${EVERYONE.toString('hex')}'`;

// Whether the workspace, given as an SQL expression, is halted.
export const halted = (workspace: string, mode?: 'STOPPED'): string =>
  `EXISTS (SELECT 1 FROM holds h WHERE h.workspace IN (${workspace}, ${ALL})${mode ? ` AND h.mode = '${mode}'` : ''})`;

// Whether the lane, given as an SQL expression, hands out work. Read in the statement that takes it, so that a pause holds from its commit on.
// With 'ANY_SERVER' only if whatever stands in it may run on any server.
export const isOpen = (lane: string, whose?: 'ANY_SERVER'): string =>
  `NOT EXISTS (SELECT 1 FROM lanes g WHERE g.lane = ${lane}
    AND (g.state = 'PAUSED' OR ${whose ? 'g.labels IS NOT NULL OR ' : ''}${halted('g.workspace')}))`;

// What is left of a rate: it fills up to one second's, and is at least one. Source: token bucket (Turner, "New directions in communications", 1986).
export function refill({ tokens, seconds, rate }: { tokens: number | null; seconds: number; rate: number }): number {
  const most = Math.max(1, rate);
  return tokens === null ? most : Math.min(most, tokens + Math.max(0, seconds) * rate);
}
