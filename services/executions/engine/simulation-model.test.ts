// The engine in memory, for simulation: its tables, and every move of the queue as one atomic step that decides by machine.ts. The SQL in this folder
// makes the same moves; simulation.test.ts compares the two. `Flaw` leaves a part out, to see that the simulation notices.
import { afterDeadline, afterHold, afterLoss, afterRefusal, afterResult, type Claimed, type Outcome, type Policy, type State, type Verdict } from './machine.ts'; // biome-ignore format: one import

export type Flaw = 'noFence' | 'plainRead' | 'attemptFence' | 'forgetsCancelling' | 'noDedup' | 'slotKept' | 'noPromotion';
export interface Row {
  id: number;
  key: string | null;
  attempt: number;
  losses: number;
}
export interface Timer extends Row {
  kind: 'START' | 'RETRY' | 'PAUSE';
  due: number;
  resume: number | null;
}
export interface Running extends Row {
  claim: number;
  server: number;
  state: 'RUNNING' | 'CANCELLING';
  started: boolean;
  deadline: number;
  lines: number;
}
export interface Tables {
  executions: Map<number, { state: State; version: number; ends: number; lost: number; writes: number; key: string | null }>;
  ready: Row[]; // in the order of their tags
  waiting: Row[]; // in the order of their seq
  timers: Timer[];
  running: Map<number, Running>;
  limits: Map<string, { max: number; used: number }>;
  slots: Set<string>;
  keys: Map<string, number>; // of idempotency
  lines: Map<string, number[]>; // of each attempt: the claims that wrote them
}
export interface Clock {
  now: number;
}

export const RUN_MS = 300;
const GRACE_MS = 100;
export const POLICY: Policy = { maxAttempts: 3, initialMs: 20, coefficient: 2, maxMs: 100, nonRetryable: new Set(), onLost: 'RETRY' };
export const isFinal = (state: State): boolean => ['SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT', 'SKIPPED'].includes(state);

export const emptyTables = (max: number): Tables => ({
  executions: new Map(),
  ready: [],
  waiting: [],
  timers: [],
  running: new Map(),
  limits: new Map([['k', { max, used: 0 }]]),
  slots: new Set(),
  keys: new Map(),
  lines: new Map(),
});

const slotOf = ({ key, id }: Row): string => `${key} ${id}`;
const take = <T extends Row>(rows: T[], id: number): T | undefined => rows.splice(rows.findIndex((row) => row.id === id) >>> 0, 1)[0];

export function openModel(tables: Tables, clock: Clock, flaws: ReadonlySet<Flaw> = new Set()) {
  let claims = 0;
  const has = (flaw: Flaw) => flaws.has(flaw);

  // To ready with a slot, or behind the limit.
  function enter(row: Row): void {
    const limit = row.key === null ? undefined : tables.limits.get(row.key);
    const plain = { id: row.id, key: row.key, attempt: row.attempt, losses: row.losses };
    if (limit && limit.used >= limit.max) return void tables.waiting.push(plain);
    if (limit) {
      limit.used += 1;
      tables.slots.add(slotOf(row));
    }
    tables.ready.push(plain);
  }

  // Frees a slot and lets the first waiters in, in the same transaction.
  function free(row: Row): void {
    const limit = row.key === null ? undefined : tables.limits.get(row.key);
    if (!limit || has('slotKept')) return;
    tables.slots.delete(slotOf(row));
    limit.used -= 1;
    if (!has('noPromotion')) promote(row.key as string);
  }

  function promote(key: string): void {
    const limit = tables.limits.get(key);
    for (let next = tables.waiting.find((one) => one.key === key); limit && next && limit.used < limit.max; ) {
      take(tables.waiting, next.id);
      enter(next);
      next = tables.waiting.find((one) => one.key === key);
    }
  }

  function end(id: number, state: State): void {
    const execution = tables.executions.get(id);
    if (!execution) return;
    execution.state = state;
    execution.version += 1;
    execution.ends += 1;
  }

  // Out of running, as the verdict says.
  function leave(row: Running, verdict: Verdict): void {
    tables.running.delete(row.id);
    const execution = tables.executions.get(row.id);
    if (!execution) return;
    if (verdict.to === 'QUEUED') {
      tables.ready.push({ id: row.id, key: row.key, attempt: row.attempt, losses: verdict.losses });
      return;
    }
    if (verdict.attempt === 'LOST') execution.lost += 1;
    free(row);
    if (verdict.to === 'RETRYING') {
      execution.state = 'RETRYING';
      execution.version += 1;
      const next = { id: row.id, key: row.key, attempt: row.attempt + 1, losses: 0 };
      tables.timers.push({ ...next, kind: 'RETRY', due: clock.now + verdict.inMs, resume: null });
    } else end(row.id, verdict.to);
  }

  const situation = (id: number, random: number) => ({ policy: POLICY, leftMs: 1e9, lost: tables.executions.get(id)?.lost ?? 0, random });
  const claimedOf = ({ state, attempt, losses, started }: Running): Claimed => ({ state, attempt, losses, started });

  return {
    // Answers the id; the same one for the same idempotency key.
    accept(id: number, idempotencyKey: string, key: string | null, inMs: number): number {
      const earlier = tables.keys.get(idempotencyKey);
      if (earlier !== undefined && !has('noDedup')) return earlier;
      tables.keys.set(idempotencyKey, id);
      const state = inMs > 0 ? 'SCHEDULED' : 'QUEUED';
      tables.executions.set(id, { state, version: 1, ends: 0, lost: 0, writes: 0, key });
      const row = { id, key, attempt: 1, losses: 0 };
      if (inMs > 0) tables.timers.push({ ...row, kind: 'START', due: clock.now + inMs, resume: null });
      else enter(row);
      return id;
    },

    claim(server: number): Running | undefined {
      const row = tables.ready.shift();
      if (!row) return undefined;
      claims += 1;
      const running: Running = { ...row, claim: claims, server, state: 'RUNNING', started: false, deadline: clock.now + RUN_MS, lines: 0 };
      tables.running.set(row.id, running);
      return { ...running };
    },

    // The fence: whoever writes must name the present claim.
    mayWrite(id: number, claim: number, attempt: number): boolean {
      const row = tables.running.get(id);
      if (has('noFence')) return true;
      if (has('attemptFence')) return row?.attempt === attempt;
      if (has('forgetsCancelling') && row?.state === 'CANCELLING') return false;
      return row?.claim === claim;
    },

    // Lines from..to of a claim, a start, a result: one transaction. The caller has asked mayWrite in it; with plainRead, some time before.
    write(id: number, claim: number, report: { attempt: number; lines: number; outcome?: Outcome | undefined }, random: number): boolean {
      const row = tables.running.get(id);
      const execution = tables.executions.get(id);
      if (!execution) return false;
      execution.writes += 1;
      const name = `${id} ${report.attempt}`;
      const before = tables.lines.get(name) ?? [];
      const known = row?.lines ?? before.length;
      tables.lines.set(name, [...before, ...Array.from({ length: Math.max(0, report.lines - known) }, () => claim)]);
      if (!row) {
        if (report.outcome) end(id, report.outcome.kind === 'SUCCEEDED' ? 'SUCCEEDED' : 'FAILED'); // only without a fence
        return true;
      }
      row.lines = Math.max(row.lines, report.lines);
      if (!row.started) {
        row.started = true;
        row.deadline = row.state === 'RUNNING' ? clock.now + RUN_MS : row.deadline;
      }
      if (report.outcome) leave(row, afterResult(claimedOf(row), report.outcome, situation(id, random)));
      return true;
    },

    refuse(id: number, claim: number): void {
      const row = tables.running.get(id);
      if (row?.claim === claim && !row.started) leave(row, afterRefusal(claimedOf(row)));
    },

    lose(id: number, claim: number, random: number): void {
      const row = tables.running.get(id);
      if (row?.claim === claim) leave(row, afterLoss(claimedOf(row), situation(id, random)));
    },

    overdue(random: number): void {
      for (const row of [...tables.running.values()]) {
        if (row.deadline <= clock.now) leave(row, afterDeadline(claimedOf(row), situation(row.id, random)));
      }
    },

    // What is due enters the queue.
    due(): number {
      const now = tables.timers
        .filter(({ kind, due }) => kind !== 'PAUSE' && due <= clock.now)
        .sort((a, b) => a.due - b.due || a.id - b.id);
      for (const row of now) {
        take(tables.timers, row.id);
        enter(row);
      }
      return now.length;
    },

    cancel(id: number): void {
      const running = tables.running.get(id);
      if (running?.state === 'CANCELLING') return;
      if (running) {
        running.state = 'CANCELLING';
        running.deadline = Math.min(running.deadline, clock.now + GRACE_MS);
        return;
      }
      const ready = take(tables.ready, id);
      const left = ready ?? take(tables.waiting, id) ?? take(tables.timers, id);
      if (!left) return;
      end(id, 'CANCELLED');
      if (ready) free(ready);
    },

    pause(id: number): void {
      const timer = tables.timers.find((one) => one.id === id);
      if (timer?.kind === 'PAUSE') return;
      const ready = take(tables.ready, id);
      const left = ready ?? take(tables.waiting, id) ?? take(tables.timers, id);
      const execution = tables.executions.get(id);
      if (!left || !execution) return;
      const { key, attempt, losses } = left;
      tables.timers.push({ id, key, attempt, losses, kind: 'PAUSE', due: Number.POSITIVE_INFINITY, resume: timer?.due ?? null });
      execution.state = 'PAUSED';
      if (ready) free(ready);
    },

    resume(id: number): void {
      const timer = tables.timers.find((one) => one.id === id && one.kind === 'PAUSE');
      const execution = tables.executions.get(id);
      if (!timer || !execution) return;
      const resumeTime = timer.resume === null ? null : new Date(timer.resume);
      const next = afterHold({ attempt: timer.attempt, resumeTime, now: new Date(clock.now) });
      execution.state = next.to;
      if (next.to === 'QUEUED') {
        take(tables.timers, id);
        enter(timer);
      } else Object.assign(timer, { kind: next.to === 'RETRYING' ? 'RETRY' : 'START', due: next.at.getTime(), resume: null });
    },
  };
}
export type Model = ReturnType<typeof openModel>;

// What must hold after every step.
export function breachOf(tables: Tables): string | undefined {
  const standing = [...tables.ready, ...tables.waiting, ...tables.timers, ...tables.running.values()];
  const places = new Map<number, number>();
  for (const { id } of standing) places.set(id, (places.get(id) ?? 0) + 1);
  for (const [id, { state, ends }] of tables.executions) {
    if (ends > 1) return `I2: ${id} ended ${ends} times`;
    if ((places.get(id) ?? 0) !== (isFinal(state) ? 0 : 1)) return `I7: ${id} is ${state} and stands in ${places.get(id) ?? 0} places`;
  }
  for (const [key, { max, used }] of tables.limits) {
    const holders = [...tables.ready, ...tables.running.values()].filter((row) => row.key === key).length;
    if (used > max) return `the limit ${key} has ${used} of ${max}`;
    if (used !== holders || used !== tables.slots.size) return `${used} slots of ${key} for ${holders} holders`;
    if (used < max && tables.waiting.some((row) => row.key === key)) return `I7: there is room in ${key}, and somebody waits`;
  }
  return undefined;
}
