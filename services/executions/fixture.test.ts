// What the tests of executions share: a world with the module, automations published through the contract, and rows as the dispatcher writes them.
import { createHash } from 'node:crypto';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import { Execution } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionServiceService, type TailExecutionLogsResponse } from '#gen/millrace/executions/v1/execution_service.ts';
import { ProjectionServiceService } from '#gen/millrace/executions/v1/projection_service.ts';
import { Line } from '#gen/millrace/runner/v1/job.ts';
import type { Fault } from '#platform/errors.ts';
import { newBytes, newId, toBytes } from '#platform/id.ts';
import { type Person, startWorld, type World } from '../../tests/world.ts';
import { compress, encodeLines, PLAIN, ZSTD } from './engine/log-codec.ts';
import { module } from './module.ts';

export const startExecutions = (env: Record<string, string> = {}): Promise<World> =>
  startWorld({ targets: ['executions'], modules: [module], env });

export const clientOf = (world: World, person: Person) => world.as(person, ExecutionServiceService);

interface Published {
  id?: string;
  workspace: string;
  version?: number;
  publishedRevision?: number;
  disabled?: boolean;
  deleted?: boolean;
  specs?: Partial<AutomationSpec>[]; // of revisions 1, 2, …
}

// Tells executions of an automation, as the automations area does; answers its id.
export async function publish(world: World, { id = newId('automation'), workspace, specs = [{}], ...rest }: Published): Promise<string> {
  await world.asService('automations', ProjectionServiceService).applyAutomation({
    automationId: id,
    workspaceId: workspace,
    name: 'an automation',
    version: 1,
    publishedRevision: 1,
    disabled: false,
    deleted: false,
    ...rest,
    revisions: specs.map((spec, index) => ({
      number: index + 1,
      spec: AutomationSpec.fromPartial({ source: 'print(1)', ...spec } as object),
    })),
  });
  return id;
}

export const draft = (automationId: string, rest: Partial<Execution> = {}): Execution => Execution.fromPartial({ automationId, ...rest });

export const caught = (work: Promise<unknown>): Promise<Fault> =>
  work.then(
    () => {
      throw new Error('it was not refused');
    },
    (error) => error as Fault,
  );

// Moves an execution from ready to running, as a claim does.
export async function claim(world: World, executionId: string, overrides: Record<string, unknown> = {}): Promise<void> {
  const db = world.db('executions');
  const execution = toBytes('execution', executionId);
  await db.transaction(async (tx) => {
    const { workspace } = await tx('executions').where({ id: execution }).first();
    const { lane, priority, limit_key, attempt, losses, expire_time } = await tx('ready').where({ execution }).forUpdate().first();
    await tx('ready').where({ execution }).delete();
    const now = tx.raw('NOW(6)');
    const deadline = tx.raw('NOW(6) + INTERVAL 300 SECOND');
    const row = {
      execution,
      workspace,
      claim_id: newBytes(),
      attempt,
      losses,
      server: newBytes(),
      lane,
      priority,
      limit_key,
      state: 'RUNNING',
    };
    await tx('running').insert({ ...row, started: true, claim_time: now, deadline, expire_time, ...overrides });
  });
}

export const lineOf = (seq: number, text = `line ${seq}`, rest: Partial<Line> = {}): Line =>
  Line.fromPartial({ seq, time: new Date(1_760_000_000_000 + seq), stream: 1, text, ...rest });

export const lines = (from: number, to: number): Line[] => Array.from({ length: to - from }, (_, index) => lineOf(from + index));

export async function startAttempt(world: World, executionId: string, number: number): Promise<void> {
  const db = world.db('executions');
  const row = {
    execution: toBytes('execution', executionId),
    number,
    claim_id: newBytes(),
    server: newBytes(),
    sandbox_tier: 2,
    isolation: 'FRESH',
  };
  await db('attempts').insert({ ...row, state: 'RUNNING', limits: '["memory:cgroup"]', start_time: db.raw('NOW(6)') });
}

// One chunk of log, as one commit of the dispatcher writes it.
export async function writeLines(world: World, executionId: string, attempt: number, chunk: readonly Line[], codec = PLAIN): Promise<void> {
  const plain = encodeLines(chunk);
  const body = codec === ZSTD ? compress(plain) : plain;
  await world
    .db('executions')('log_chunks')
    .insert({
      execution: toBytes('execution', executionId),
      attempt,
      first_seq: chunk[0]?.seq ?? 0,
      count: chunk.length,
      bytes: plain.length,
      codec,
      body,
    });
}

// Merges all chunks of an attempt into one, as compaction does.
export async function compact(world: World, executionId: string, attempt: number, all: readonly Line[]): Promise<void> {
  const plain = encodeLines(all);
  const key = { execution: toBytes('execution', executionId), attempt };
  await world.db('executions').transaction(async (tx) => {
    await tx('log_chunks').where(key).delete();
    await tx('log_chunks').insert({ ...key, first_seq: 0, count: all.length, bytes: plain.length, codec: ZSTD, body: compress(plain) });
  });
}

export const sha = (all: readonly { text: string; partial: boolean }[]): string =>
  createHash('sha256')
    .update(all.map(({ text, partial }) => (partial ? text : `${text}\n`)).join(''))
    .digest('hex');

export async function endAttempt(
  world: World,
  executionId: string,
  number: number,
  state: string,
  all: readonly Line[] | undefined,
): Promise<void> {
  const db = world.db('executions');
  const counted = all ? { log_count: all.length, log_sha256: sha(all), dropped_bytes: 0 } : {};
  await db('attempts')
    .where({ execution: toBytes('execution', executionId), number })
    .update({ state, end_time: db.raw('NOW(6)'), ...counted });
}

export async function endExecution(world: World, executionId: string, state: string, rest: Record<string, unknown> = {}): Promise<void> {
  const execution = toBytes('execution', executionId);
  await world.db('executions').transaction(async (tx) => {
    for (const table of ['running', 'ready', 'waiting', 'timers']) await tx(table).where({ execution }).delete();
    await tx('executions')
      .where({ id: execution })
      .update({ state, end_time: tx.raw('NOW(6)'), version: tx.raw('version + 1'), ...rest });
  });
}

export async function collect(stream: AsyncIterable<TailExecutionLogsResponse>): Promise<TailExecutionLogsResponse[]> {
  const frames: TailExecutionLogsResponse[] = [];
  for await (const frame of stream) if (!frame.keepAlive) frames.push(frame);
  return frames;
}
