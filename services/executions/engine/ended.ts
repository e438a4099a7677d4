// What is told of executions that ended: their rows as the event needs them, the outbox statement, and the dead letters among them.
import { fromBytes } from '#platform/id.ts';
import { emitSql } from '#platform/outbox.ts';
import * as events from '../events.ts';
import { messageOf, type Row } from '../execution.ts';
import { format, insert } from './sql.ts';

export type Told = Omit<Row, 'input' | 'output' | 'running_state' | 'timer' | 'due_time' | 'blocked' | 'selector'>;

const COLUMNS = `id, workspace, automation, revision, state, version, creator, retry_of, labels, priority, limit_key, error, attempt_count,
  schedule_time, create_time, start_time, end_time, progress_fraction, progress_message`;

export const selectTold = (ids: readonly Buffer[]): string => format(`SELECT ${COLUMNS} FROM executions WHERE id IN (?)`, [ids]);

// The rows after the change. The parts are of the event, in their order.
export function tellEnds(changed: readonly (Told & { output?: string | null })[]): { statements: string[]; parts: readonly events.Part[] } {
  const parts = changed.map((row) =>
    events.partOf({
      execution: messageOf({ output: null, ...row, ...NOT_TOLD }, ''),
      workspaceId: fromBytes('workspace', row.workspace),
    }),
  );
  return { statements: parts.length === 0 ? [] : [emitSql(...events.ended(parts)), ...deadSql(changed)], parts };
}

// What ended in one of these is a dead letter until somebody looks after it.
const DEAD = new Set<string>(['FAILED', 'TIMED_OUT']);

const deadSql = (changed: readonly Told[]): string[] =>
  insert(
    'dead_executions',
    'execution, workspace, automation, state, create_time',
    changed.filter(({ state }) => DEAD.has(state)).map((row) => [row.id, row.workspace, row.automation, 'DEAD', row.end_time]),
  ).map((sql) => `${sql} ON DUPLICATE KEY UPDATE execution = execution`); // whatever is there already, it ends

const NOT_TOLD = {
  input: null,
  running_state: null,
  timer: null,
  due_time: null,
  blocked: null,
};
