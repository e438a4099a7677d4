import { expect } from 'chai';
import { ControlServiceService } from '#gen/millrace/executions/v1/control_service.ts';
import { type Execution, Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { Cause_Reason as Reason } from '#gen/millrace/executions/v1/explanation.ts';
import { Quota_Kind as Kind, QuotaLimits } from '#gen/millrace/executions/v1/quota.ts';
import { QuotaServiceService } from '#gen/millrace/executions/v1/quota_service.ts';
import { openPool, schemaOf } from '#platform/db.ts';
import { newBytes, toBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { type Person, until } from '../../tests/world.ts';
import { openUsage } from './dispatcher/usage.ts';
import type { Leave } from './engine/finish.ts';
import { caught, claim, clientOf, draft, endExecution, publish, startExecutions } from './fixture.test.ts';
import { exceeded, over, resetTime } from './quotas.ts';
import { erasePayloads } from './retention-payloads-system.ts';
import { mendUsages } from './usage-system.ts';

const NOW = new Date();
const TODAY = NOW.toISOString().slice(0, 10);
const MIB = 1024 * 1024;

describe('quotas of a workspace', () => {
  let world: Awaited<ReturnType<typeof startExecutions>>;
  let ada: Person;
  let automationId: string;
  before(async () => {
    world = await startExecutions({ MILLRACE_QUOTA_RUN_MINUTES_PER_MONTH: '100', MILLRACE_QUOTA_RUNNING: '3' });
  });
  after(() => world.stop());
  beforeEach(async () => {
    ada = world.person();
    automationId = await publish(world, { workspace: ada.workspace });
  });

  const db = () => world.db('executions');
  const workspace = () => toBytes('workspace', ada.workspace);
  const create = (rest: Partial<Execution> = {}) =>
    clientOf(world, ada).createExecution({ execution: draft(automationId, rest), requestId: '' });
  const admin = () => world.as({ ...world.person(), scopes: ['platform.manage'] }, QuotaServiceService);
  const set = (limits: Partial<QuotaLimits>, ...updateMask: string[]) =>
    admin().updateWorkspaceQuotas({ workspaceId: ada.workspace, limits: QuotaLimits.fromPartial(limits), updateMask });
  const use = (counts: Record<string, number>, day = TODAY) =>
    db()('usages')
      .insert({ workspace: workspace(), day, log_bytes: 0, run_ms: 0, result_bytes: 0, ...counts })
      .onConflict(['workspace', 'day'])
      .merge();
  const quotas = async () => {
    const found = (await world.as(ada, QuotaServiceService).listQuotas({})).quotas;
    return Object.fromEntries(found.map(({ kind, limit, used }) => [kind, { limit, used }]));
  };

  it('are those of the installation, or what a platform admin has set; members see what is used', async () => {
    const running = await create();
    await create({ scheduleTime: new Date(Date.now() + 3_600_000) });
    await claim(world, running.id);
    await use({ log_bytes: 3 * MIB, run_ms: 90_000, result_bytes: MIB / 2 });
    await use({ log_bytes: MIB, run_ms: 60_000, result_bytes: MIB }, '2020-02-29'); // another month, and kept
    expect(await quotas()).to.deep.equal({
      [Kind.QUEUED]: { limit: 100_000, used: 1 },
      [Kind.RUNNING]: { limit: 3, used: 1 },
      [Kind.LOG_MIB_PER_DAY]: { limit: undefined, used: 3 },
      [Kind.LOG_MIB_PER_MONTH]: { limit: undefined, used: 3 },
      [Kind.RESULT_MIB]: { limit: undefined, used: 1.5 },
      [Kind.RUN_MINUTES_PER_MONTH]: { limit: 100, used: 1.5 },
    });
    const { limits } = await set({ running: 7, resultMib: 2 });
    expect(limits).to.deep.equal({ ...QuotaLimits.fromPartial({}), running: 7, resultMib: 2 });
    expect((await quotas())[Kind.RUNNING]).to.deep.equal({ limit: 7, used: 1 });
    expect((await set({ queued: 5 }, 'queued', 'running')).limits).to.include({ queued: 5, running: undefined, resultMib: 2 });
    expect((await quotas())[Kind.RUNNING]).to.deep.equal({ limit: 3, used: 1 });
    expect((await admin().getWorkspaceQuotas({ workspaceId: ada.workspace })).quotas).to.have.length(6);
  });

  it('are set by platform admins only, field by field', async () => {
    const limits = QuotaLimits.fromPartial({ running: 1 });
    const own = world.as(ada, QuotaServiceService);
    expect(await caught(own.updateWorkspaceQuotas({ workspaceId: ada.workspace, limits, updateMask: [] }))).to.include({
      reason: 'PERMISSION_MISSING',
    });
    expect(await caught(own.getWorkspaceQuotas({ workspaceId: ada.workspace }))).to.include({ reason: 'PERMISSION_MISSING' });
    expect(await caught(set({}))).to.include({ reason: 'NO_FIELDS' });
    expect(await caught(set({ running: 0 }))).to.include({ reason: 'FIELD_INVALID' });
    expect(await caught(set({ running: 1 }, 'workers'))).to.include({ reason: 'FIELD_INVALID' });
    expect(await caught(admin().getWorkspaceQuotas({ workspaceId: 'x' }))).to.include({ reason: 'ID_INVALID' });
  });

  it('that are used up refuse what is new, and say which, how much and until when', async () => {
    await use({ run_ms: 100 * 60_000 });
    const reset = resetTime('run_minutes_per_month', new Date())?.toISOString();
    const fault = await caught(create());
    expect(fault).to.deep.include({
      reason: 'QUOTA_EXCEEDED',
      metadata: { quota: 'RUN_MINUTES_PER_MONTH', limit: '100', reset_time: reset },
    });
    expect(fault.retryAfterMs).to.be.within(1, 3_600_000);
    await set({ runMinutesPerMonth: 101 });
    await until('the higher limit to be known', async () => (await create().catch(() => undefined))?.state === State.QUEUED);
    for (const [limits, used, quota] of [
      [{ logMibPerDay: 1 }, { log_bytes: MIB }, 'LOG_MIB_PER_DAY'],
      [{ logMibPerMonth: 1 }, { log_bytes: MIB }, 'LOG_MIB_PER_MONTH'],
      [{ resultMib: 2 }, { result_bytes: 2 * MIB }, 'RESULT_MIB'],
    ] as const) {
      ada = world.person();
      automationId = await publish(world, { workspace: ada.workspace });
      await set(limits);
      await use(used);
      expect((await caught(create())).metadata.quota).to.equal(quota);
    }
  });

  it('of what waits is that of the workspace', async () => {
    await set({ queued: 2 });
    await Promise.all([create(), create()]);
    expect(await caught(create())).to.include({ reason: 'QUEUE_FULL' });
  });

  it('QUOTA: as many run as may', async () => {
    const waits = await create();
    for (let n = 0; n < 2; n += 1) await claim(world, (await create()).id);
    const explain = async () => (await world.as(ada, ControlServiceService).explainExecution({ id: waits.id })).causes;
    expect((await explain()).map(({ reason }) => reason)).to.not.include(Reason.QUOTA);
    await claim(world, (await create()).id);
    const [cause] = await explain();
    expect(cause).to.include({ reason: Reason.QUOTA, message: '3 of 3 executions of the workspace run already.' });
    expect(cause?.quota).to.deep.include({ kind: Kind.RUNNING, limit: 3, used: 3 });
  });

  describe('in numbers', () => {
    const pool = () => openPool(world.config, schemaOf(world.config, 'executions'), 1);
    const rowOf = async () => {
      const row = await db()('usages').where({ workspace: workspace() }).first();
      return row && { log_bytes: row.log_bytes, run_ms: row.run_ms, result_bytes: row.result_bytes };
    };
    const leave = (rest: object): Leave =>
      ({
        row: { workspace: workspace(), started: 1, claim_time: new Date(NOW.getTime() - 5000) },
        told: { create_time: NOW, start_time: new Date(NOW.getTime() - 4000) },
        verdict: { to: 'SUCCEEDED', output: '"é"' },
        endTime: NOW,
        usage: { logBytes: 10 },
        ...rest,
      }) as unknown as Leave;

    it('are counted from what ends, together, whatever ended it', async () => {
      const connections = pool();
      const usage = openUsage({ pool: connections, log: openLog('silent') });
      usage.count([leave({}), leave({ verdict: { to: 'RETRYING' }, usage: undefined })]);
      usage.count([leave({ row: { workspace: workspace(), started: 0, claim_time: NOW }, verdict: { to: 'QUEUED' }, usage: undefined })]);
      usage.count([leave({ start: { time: new Date(NOW.getTime() - 1000) } })]);
      await usage.stop();
      await connections.end();
      expect(await rowOf()).to.deep.equal({ log_bytes: 20, run_ms: 9000, result_bytes: 8 });
    });

    it('are put right when they are too low, never made lower, and results go with what was kept', async () => {
      const { id } = await create();
      await claim(world, id, {});
      await endExecution(world, id, 'SUCCEEDED', { output: '"12345678"', attempt_count: 1 });
      const old = (seconds: number) => db().raw('NOW(6) - INTERVAL ? SECOND', [seconds]);
      await db()('executions')
        .where({ id: toBytes('execution', id) })
        .update({ end_time: old(90), create_time: old(100) });
      await db()('attempts').insert({
        ...{
          execution: toBytes('execution', id),
          number: 1,
          state: 'SUCCEEDED',
          claim_id: newBytes(),
          server: newBytes(),
          sandbox_tier: 2,
        },
        ...{ isolation: 'FRESH', limits: '[]', start_time: old(95), end_time: old(90), log_bytes: 70 },
      });
      const connections = pool();
      const mend = () => mendUsages({ pool: connections, now: new Date(), log: { info: () => undefined } });
      expect(await mend()).to.be.above(0);
      expect(await rowOf()).to.deep.equal({ log_bytes: 70, run_ms: 5000, result_bytes: 10 });
      await db()('usages').where({ workspace: workspace() }).update({ log_bytes: 71 });
      await use({ result_bytes: 9 }, '2020-02-29');
      expect(await mend()).to.equal(0);
      expect(await rowOf()).to.include({ log_bytes: 71 });
      expect(await db()('usages').where({ workspace: workspace(), day: '2020-02-29' })).to.deep.equal([]);
      await db()('payloads').insert({ execution: toBytes('execution', id), due_time: old(1), on_read: false });
      await erasePayloads(connections);
      expect(await rowOf(), 'after the result was erased').to.deep.equal({ log_bytes: 71, run_ms: 5000, result_bytes: 0 });
      await connections.end();
    });

    it('begin anew with the day and the month of UTC', () => {
      const last = new Date('2026-12-31T23:59:59.999Z');
      expect(resetTime('log_mib_per_day', last)?.toISOString()).to.equal('2027-01-01T00:00:00.000Z');
      expect(resetTime('run_minutes_per_month', new Date('2026-02-01T00:00:00Z'))?.toISOString()).to.equal('2026-03-01T00:00:00.000Z');
      expect(resetTime('running', last)).to.equal(undefined);
    });

    it('refuse from the limit on, and never for what waits or runs', () => {
      const none = {
        queued: null,
        running: null,
        log_mib_per_day: null,
        log_mib_per_month: null,
        result_mib: null,
        run_minutes_per_month: null,
      };
      const used = { queued: 9, running: 9, log_mib_per_day: 9, log_mib_per_month: 9, result_mib: 9, run_minutes_per_month: 9 };
      expect(exceeded(over({ queued: 1, running: 1 }, none), used)).to.equal(undefined);
      expect(exceeded(over({ result_mib: 10 }, none), used)).to.equal(undefined);
      expect(exceeded(over({ result_mib: 9 }, none), used)).to.equal('result_mib');
      expect(over({ result_mib: null }, { ...none, result_mib: 3 }).result_mib).to.equal(3);
    });
  });
});
