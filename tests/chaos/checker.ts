// The checker: what clients recorded and what the database holds, against the promises I1 to I7 of docs/GUARANTEES.md.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type Db, openKnex } from '#platform/db.ts';
import { fromBytes } from '#platform/id.ts';
import { decodeLines } from '../../services/executions/engine/log-codec.ts';

// What a client records, one JSON object a line.
export type Happening =
  | { what: 'accepted'; key: string; body: string; id: string } // answered well; a repetition with the same key is recorded again
  | { what: 'refused'; key: string; body: string; reason: string } // answered for good
  | { what: 'seen'; id: string; state: string; version?: number; output?: string } // an answer of Get
  | { what: 'log'; id: string; entries: Entry[]; ends: AttemptEnd[]; isWhole: boolean } // one reading; whole: it was told the end
  | { what: 'told'; event: string; type: 'created' | 'ended'; id: string }; // an event, by its own id; deliveries may repeat
export interface Entry {
  attempt: number;
  seq: number;
  text: string; // one that begins with `claim <32 hexadecimal digits>` says on which claim it was written
  partial?: boolean;
}
export interface AttemptEnd {
  attempt: number;
  count: number;
  sha256: string;
}
export interface Violation {
  promise: 'I1' | 'I2' | 'I3' | 'I4' | 'I5' | 'I6' | 'I7';
  id: string; // of the execution, or the key
  why: string;
}
export interface Judgement {
  violations: Violation[];
  unfinished: string[]; // accepted and open, with an owner and a due time: not lost
}

// What the database holds, at one moment.
export interface Tables {
  executions: { id: string; state: string; version: number; attemptCount: number; output: string | null }[];
  attempts: { id: string; number: number; state: string; claim: string; logCount: number | null; sha256: string | null }[];
  lines: { id: string; attempt: number; seq: number; text: string; partial: boolean }[]; // as stored, in the order of their chunks
  places: { id: string; place: string }[];
  waitsForEver: { id: string; why: string }[]; // the answer to I7
}

const FINAL = ['SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT', 'SKIPPED'];
const OPEN_ATTEMPT = ['STARTING', 'RUNNING'];
const SLACK_SECONDS = 60; // by which whoever enforces a due time may be late

// I7 as one query: each open execution stands in exactly one place, with an owner and a due time that somebody enforces.
export const I7 = `
  SELECT e.id, CASE
      WHEN COUNT(p.execution) = 0 THEN 'it stands nowhere'
      WHEN COUNT(p.execution) > 1 THEN 'it stands in several places'
      WHEN MIN(p.due) IS NULL THEN 'nothing ends its waiting'
      WHEN MIN(p.due) < NOW(6) - INTERVAL ${SLACK_SECONDS} SECOND THEN 'its time was over, and nobody acted'
      WHEN MIN(p.place) IN ('ready', 'waiting') AND MIN(a.lane) IS NULL THEN 'nobody serves its lane'
      WHEN MIN(p.place) = 'running' AND MIN(s.id) IS NULL THEN 'nobody knows its server'
      WHEN MIN(p.place) = 'waiting' AND MIN(l.limit_key) IS NULL THEN 'nobody keeps its limit'
      WHEN MIN(p.place) = 'waiting' AND MIN(l.used) < MIN(l.max) THEN 'there is room, and nobody lets it in'
      WHEN MIN(p.place) = 'waiting' AND MIN(h.n) IS NULL THEN 'it waits for a slot that nobody holds'
    END AS why
  FROM executions e
    LEFT JOIN (
      SELECT execution, 'ready' AS place, expire_time AS due, lane, limit_key, NULL AS server FROM ready
      UNION ALL SELECT execution, 'waiting', expire_time, lane, limit_key, NULL FROM waiting
      UNION ALL SELECT execution, 'timers', due_time, lane, limit_key, NULL FROM timers
      UNION ALL SELECT execution, 'running', deadline, lane, limit_key, server FROM running
    ) p ON p.execution = e.id
    LEFT JOIN lanes a ON a.lane = p.lane
    LEFT JOIN servers s ON s.id = p.server
    LEFT JOIN limits l ON l.limit_key = p.limit_key
    LEFT JOIN (
      SELECT limit_key, COUNT(*) AS n FROM (SELECT limit_key FROM ready UNION ALL SELECT limit_key FROM running) r
      WHERE limit_key IS NOT NULL GROUP BY limit_key
    ) h ON h.limit_key = p.limit_key
  WHERE e.state NOT IN (${FINAL.map((state) => `'${state}'`).join(', ')})
  GROUP BY e.id HAVING why IS NOT NULL`;

export const readHistory = (file: string): Happening[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

// The schema of executions at a database, read and judged.
export async function check(history: readonly Happening[], config: Parameters<typeof openKnex>[0], schema: string): Promise<Judgement> {
  const db = openKnex(config, schema, 1);
  try {
    return judge(history, await readTables(db));
  } finally {
    await db.destroy();
  }
}

const idOf = (bytes: Buffer): string => fromBytes('execution', bytes);

// All at one moment.
export async function readTables(db: Db): Promise<Tables> {
  return db.transaction(
    async (tx) => {
      const executions = await tx('executions').select('id', 'state', 'version', 'attempt_count', 'output');
      const large = await tx('results').select('execution', 'body').where({ kind: 'OUTPUT' });
      const outputs = new Map(large.map(({ execution, body }) => [idOf(execution), String(body)]));
      const attempts = await tx('attempts').select('execution', 'number', 'state', 'claim_id', 'log_count', 'log_sha256');
      const chunks = await tx('log_chunks').select('execution', 'attempt', 'codec', 'body').orderBy(['execution', 'attempt', 'first_seq']);
      const places = await Promise.all(
        ['ready', 'waiting', 'timers', 'running'].map(async (place) =>
          (await tx(place).select('execution')).map(({ execution }) => ({ id: idOf(execution), place })),
        ),
      );
      const [waiting] = await tx.raw(I7);
      return {
        executions: executions.map((row) => ({
          id: idOf(row.id),
          state: row.state,
          version: row.version,
          attemptCount: row.attempt_count,
          output: row.output ?? outputs.get(idOf(row.id)) ?? null,
        })),
        attempts: attempts.map((row) => ({
          id: idOf(row.execution),
          number: row.number,
          state: row.state,
          claim: row.claim_id.toString('hex'),
          logCount: row.log_count,
          sha256: row.log_sha256,
        })),
        lines: chunks.flatMap(({ execution, attempt, codec, body }) =>
          decodeLines(codec, body).map(({ seq, text, partial }) => ({ id: idOf(execution), attempt, seq, text, partial })),
        ),
        places: places.flat(),
        waitsForEver: waiting.map((row: { id: Buffer; why: string }) => ({ id: idOf(row.id), why: row.why })),
      };
    },
    { isolationLevel: 'repeatable read' },
  );
}

export function judge(history: readonly Happening[], tables: Tables): Judgement {
  const violations: Violation[] = [];
  const report = (promise: Violation['promise'], id: string, why: string) => void violations.push({ promise, id, why });
  const known = new Map(tables.executions.map((row) => [row.id, row]));
  const accepted = [...new Set(of(history, 'accepted').map(({ id }) => id))];
  for (const id of accepted) if (!known.has(id)) report('I1', id, 'it was accepted, and there is no such execution');
  for (const { id, why } of tables.waitsForEver) report('I7', id, why);
  checkEnds(history, tables, known, report);
  checkEffects(history, tables, known, report);
  checkLogs(history, tables, report);
  checkKeys(history, report);
  const broken = new Set(tables.waitsForEver.map(({ id }) => id));
  const isOpen = (id: string) => known.has(id) && !FINAL.includes(known.get(id)?.state ?? '');
  return { violations, unfinished: accepted.filter((id) => isOpen(id) && !broken.has(id)) };
}

type Report = (promise: Violation['promise'], id: string, why: string) => void;
type Known = ReadonlyMap<string, Tables['executions'][number]>;

const of = <W extends Happening['what']>(history: readonly Happening[], what: W) =>
  history.filter((one): one is Extract<Happening, { what: W }> => one.what === what);

function grouped<T>(all: readonly T[], keyOf: (one: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const one of all) groups.set(keyOf(one), [...(groups.get(keyOf(one)) ?? []), one]);
  return groups;
}

// I2 and I6: one final state, that never changes, and nothing is written after it.
function checkEnds(history: readonly Happening[], tables: Tables, known: Known, report: Report): void {
  const final = of(history, 'seen').filter(({ state }) => FINAL.includes(state));
  for (const [id, all] of grouped(final, ({ id }) => id)) {
    const row = known.get(id);
    const states = new Set([...all.map(({ state }) => state), ...(row ? [row.state] : [])]);
    const promise = states.has('CANCELLED') ? 'I6' : 'I2';
    if (states.size > 1) report('I2', id, `it ended as ${[...states].join(' and as ')}`);
    const versions = new Set(all.flatMap(({ version }) => version ?? []));
    if (row && versions.size > 0) versions.add(row.version);
    if (versions.size > 1) report(promise, id, 'it was changed after its end');
    const outputs = new Set(all.flatMap(({ output }) => output ?? []));
    if (outputs.size > 1) report('I2', id, 'it had several results');
  }
  const seen = new Map<string, string>();
  for (const { id, state } of of(history, 'seen')) {
    const before = seen.get(id);
    if (before && FINAL.includes(before) && !FINAL.includes(state)) report('I2', id, `it was ${before}, and later ${state}`);
    seen.set(id, state);
  }
  const isEnded = (id: string) => FINAL.includes(known.get(id)?.state ?? '');
  for (const { id, place } of tables.places) if (isEnded(id)) report('I2', id, `it has ended, and stands in ${place}`);
  for (const { id, number, state } of tables.attempts) {
    if (!isEnded(id) || !OPEN_ATTEMPT.includes(state)) continue;
    report(known.get(id)?.state === 'CANCELLED' ? 'I6' : 'I3', id, `it has ended, and attempt ${number} goes on`);
  }
}

// I3: one attempt succeeds, attempts are numbered one by one, and each end is told by one event.
function checkEffects(history: readonly Happening[], tables: Tables, known: Known, report: Report): void {
  for (const [id, all] of grouped(tables.attempts, (one) => one.id)) {
    const row = known.get(id);
    const numbers = all.map(({ number }) => number).sort((a, b) => a - b);
    if (numbers.some((number, index) => number !== index + 1)) report('I3', id, `its attempts are numbered ${numbers.join(', ')}`);
    const well = all.filter(({ state }) => state === 'SUCCEEDED');
    if (well.length > 1) report('I3', id, `${well.length} attempts succeeded`);
    if (well.length > 0 && row && FINAL.includes(row.state) && row.state !== 'SUCCEEDED')
      report('I3', id, `an attempt succeeded, and it is ${row.state}`);
    if (row && row.attemptCount !== all.length) report('I3', id, `it counts ${row.attemptCount} attempts, and ${all.length} are there`);
    if (all.filter(({ state }) => OPEN_ATTEMPT.includes(state)).length > 1) report('I3', id, 'several attempts go on');
  }
  for (const row of tables.executions) {
    const succeeded = tables.attempts.some(({ id, state }) => id === row.id && state === 'SUCCEEDED');
    if (row.state === 'SUCCEEDED' && !succeeded) report('I3', row.id, 'it succeeded without an attempt that did');
  }
  for (const [name, all] of grouped(of(history, 'told'), ({ id, type }) => `${type} ${id}`)) {
    const events = new Set(all.map(({ event }) => event));
    const [type, id = ''] = name.split(' ');
    if (events.size > 1) report('I3', id, `${events.size} events say that it was ${type}`);
    if (type === 'ended' && known.has(id) && !FINAL.includes(known.get(id)?.state ?? ''))
      report('I2', id, 'its end was told, and it is open');
  }
}

const hashOf = (entries: readonly Pick<Entry, 'text' | 'partial'>[]): string => {
  const hash = createHash('sha256');
  for (const { text, partial } of entries) hash.update(partial ? text : `${text}\n`);
  return hash.digest('hex');
};

// I4: every attempt's lines are numbered 0 to n-1, written on one claim, and the same for everybody.
function checkLogs(history: readonly Happening[], tables: Tables, report: Report): void {
  const nameOf = (id: string, attempt: number) => `${id} ${attempt}`;
  const stored = grouped(tables.lines, ({ id, attempt }) => nameOf(id, attempt));
  const attempts = new Map(tables.attempts.map((one) => [nameOf(one.id, one.number), one]));
  for (const [name, lines] of stored) {
    const [id = '', number] = name.split(' ');
    const attempt = attempts.get(name);
    if (lines.some(({ seq }, index) => seq !== index))
      report('I4', id, `attempt ${number} has lines ${lines.map(({ seq }) => seq).join(', ')}`);
    const claims = new Set(lines.flatMap(({ text }) => /^claim ([0-9a-f]{32})/.exec(text)?.[1] ?? []));
    if (attempt) claims.add(attempt.claim);
    if (claims.size > 1) report('I3', id, `attempt ${number} has lines of ${claims.size} claims`);
  }
  for (const [name, { id, number, logCount, sha256 }] of attempts) {
    const lines = stored.get(name) ?? [];
    if (logCount !== null && logCount !== lines.length)
      report('I4', id, `attempt ${number} counts ${logCount} lines, and ${lines.length} are there`);
    else if (logCount !== null && sha256 && sha256 !== hashOf(lines)) report('I4', id, `attempt ${number} has lines of another hash`);
  }
  for (const { id, entries, ends, isWhole } of of(history, 'log')) {
    for (const [number, own] of grouped(entries, ({ attempt }) => String(attempt))) {
      const first = own[0]?.seq ?? 0;
      if (own.some(({ seq }, index) => seq !== first + index)) report('I4', id, `a reader of attempt ${number} saw a gap`);
      const lines = stored.get(`${id} ${number}`) ?? [];
      if (own.some(({ seq, text }) => lines[seq]?.text !== text)) report('I4', id, `a reader of attempt ${number} saw what is not there`);
      if (isWhole && own.length !== lines.length)
        report('I4', id, `a reader of attempt ${number} saw ${own.length} of ${lines.length} lines`);
      const end = ends.find(({ attempt }) => String(attempt) === number);
      if (end && first === 0 && (end.count !== own.length || end.sha256 !== hashOf(own)))
        report('I4', id, `a reader of attempt ${number} was told another count or hash`);
    }
  }
}

// I5: the same key and body give the same execution; another body is refused.
function checkKeys(history: readonly Happening[], report: Report): void {
  for (const [key, all] of grouped(of(history, 'accepted'), (one) => one.key)) {
    const ids = new Set(all.map(({ id }) => id));
    const bodies = new Set(all.map(({ body }) => body));
    if (bodies.size > 1) report('I5', key, 'another body was accepted with the same key');
    else if (ids.size > 1) report('I5', key, `one key made ${[...ids].join(' and ')}`);
  }
  const keyOf = new Map<string, string>();
  for (const { key, id } of of(history, 'accepted')) {
    if ((keyOf.get(id) ?? key) !== key) report('I5', id, 'two keys were answered with one execution');
    keyOf.set(id, key);
  }
}
