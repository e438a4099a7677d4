import { expect } from 'chai';
import { Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { type Bus, openBus } from '#platform/bus.ts';
import { fromBytes, newBytes, toBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import { type Person, until, type World } from '../../tests/world.ts';
import { decodeTaken, encodeLoan, encodeTaken, type Taken } from './engine/loans.ts';
import * as notices from './engine/notices.ts';
import { clientOf, draft, publish, startExecutions } from './fixture.test.ts';
import { openLoans } from './loans.ts';

describe('a place that a dispatcher lends', function () {
  this.timeout(20_000);
  let world: World;
  let ada: Person;
  let executions: ReturnType<typeof clientOf>;
  let automationId: string;
  let bus: Bus;
  const owner = newBytes();
  const server = newBytes();
  const told: Taken[] = [];
  const db = () => world.db('executions');

  before(async () => {
    world = await startExecutions();
    ada = world.person();
    executions = clientOf(world, ada);
    automationId = await publish(world, { workspace: ada.workspace });
    bus = openBus(world.config, openLog('silent'));
    await bus.connection();
    bus.onNotice(notices.taken(fromBytes('dispatcher', owner)), (data) => void told.push(decodeTaken(data)));
    const now = db().raw('NOW(6)');
    const known = { endpoint: 'x:1', labels: '{}', slots: 8, tier: 2, minimum_tier: 1, protocol: 1, draining: false, state: 'LIVE' };
    const lease = db().raw('NOW(6) + INTERVAL 1 HOUR');
    await db()('servers').insert({ id: server, ...known, register_time: now, seen_time: now, owner, owner_epoch: 5, lease_until: lease });
    await make(); // so that the automation is remembered
    await db()('ready').delete();
  });
  after(async () => {
    await bus.stop();
    await world.stop();
  });

  const make = (rest: Parameters<typeof draft>[1] = {}, requestId = '') =>
    executions.createExecution({ execution: draft(automationId, rest), requestId });
  // The notice has come when the connection it was sent on has answered, and a moment later.
  async function lend(places = 1): Promise<void> {
    bus.notify(notices.loans, encodeLoan({ owner, server, epoch: 5, places }));
    await (await bus.connection()).flush();
    await pause(100);
  }
  async function standing(id: string) {
    const execution = toBytes('execution', id);
    const [ready, running] = await Promise.all([db()('ready').where({ execution }), db()('running').where({ execution })]);
    return { ready: ready.length, running: running.length };
  }

  it('is told as it was', () => {
    const fresh = { lane: 3, priority: 5, tag: 7, execution: newBytes(), workspace: newBytes(), automation: newBytes(), revision: 2 };
    const rest = { creator: newBytes(), retry_of: null, labels: null, input: '{"a":1}', traceparent: null, create_time: new Date(5) };
    const taken = { server, now: new Date(1_760_000_000_123), claimIds: [newBytes()], fresh: [{ ...fresh, ...rest }] };
    expect(decodeTaken(Buffer.from(encodeTaken(taken) ?? ''))).to.deep.equal(taken);
  });

  it('is taken by what is accepted: it is claimed at once, and its dispatcher is told', async () => {
    await lend();
    const made = await make({ input: { a: 1 }, priority: 2 });
    expect(made).to.include({ state: State.QUEUED, version: 1 });
    expect(await standing(made.id)).to.deep.equal({ ready: 0, running: 1 });
    await until('the notice', () => told.length === 1);
    const [{ fresh: [fresh] = [], claimIds, ...rest }] = told.splice(0) as [Taken];
    const execution = toBytes('execution', made.id);
    const row = await db()('running').where({ execution }).first();
    expect(rest).to.deep.equal({ server, now: row.claim_time });
    expect(row.claim_id).to.deep.equal(claimIds[0]);
    expect(row).to.include({ attempt: 1, losses: 0, priority: 2, state: 'RUNNING', started: 0, limit_key: null });
    expect(row.deadline.getTime() - row.claim_time.getTime()).to.equal(325_000); // start-to-close, grace and margin
    expect(row.expire_time.getTime() - (made.createTime?.getTime() ?? 0)).to.equal(24 * 3_600_000);
    expect(fresh).to.deep.include({
      execution,
      workspace: toBytes('workspace', ada.workspace),
      input: '{"a":1}',
      priority: 2,
      revision: 1,
    });
  });

  it('is forgotten when the connection to the broker was lost: what would be told may not arrive', () => {
    const hear: ((data: Uint8Array, subject: string) => void)[] = [];
    const again: (() => void)[] = [];
    const loans = openLoans({
      notify: () => undefined,
      onNotice: (_, listen) => {
        hear.push(listen);
        return () => undefined;
      },
      onReconnect: (listen) => {
        again.push(listen);
        return () => undefined;
      },
    });
    const comes = () => hear[0]?.(Buffer.from(encodeLoan({ owner, server, epoch: 5, places: 2 })), '');
    comes();
    expect(loans.take(3)).to.equal(undefined);
    expect(loans.take(1)).to.include({ epoch: 5, places: 1 });
    again[0]?.();
    expect(loans.take(1)).to.equal(undefined);
    comes();
    expect(loans.take(2)).to.include({ places: 0 });
    expect(loans.take(1)).to.equal(undefined);
  });

  it('is taken once, and not after its time', async () => {
    await lend();
    const made = [await make(), await make()];
    expect(await Promise.all(made.map(({ id }) => standing(id)))).to.deep.equal([
      { ready: 0, running: 1 },
      { ready: 1, running: 0 },
    ]);
    await db()('ready').delete();
    await lend();
    await pause(1600);
    expect(await standing((await make()).id)).to.deep.equal({ ready: 1, running: 0 });
    await db()('ready').delete();
  });

  for (const [what, how] of [
    ['with a key', () => make({}, 'once')],
    ['that is to start later', () => make({ scheduleTime: new Date(Date.now() + 3_600_000) })],
    ['with too much input for a notice', () => make({ input: { text: 'x'.repeat(70_000) } })],
  ] as const)
    it(`is not for one ${what}`, async () => {
      await lend();
      expect((await standing((await how()).id)).running).to.equal(0);
      await db()('ready').delete();
    });

  it('is not for one with a limit', async () => {
    const spec = { concurrency: { max: 1, key: [], policy: 1, maxQueued: 0 } };
    const limited = await publish(world, { workspace: ada.workspace, specs: [spec as object] });
    const one = () => executions.createExecution({ execution: draft(limited), requestId: '' });
    await one();
    await lend();
    expect((await standing((await one()).id)).running).to.equal(0);
    await db()('ready').delete();
  });

  const workspace = () => toBytes('workspace', ada.workspace);
  for (const [what, table, key, to, back] of [
    ['the queue may run only so many', 'lanes', () => ({ workspace: workspace() }), { max_running: 5 }, { max_running: null }],
    ['the queue has a rate', 'lanes', () => ({ workspace: workspace() }), { rate_per_second: 5 }, { rate_per_second: null }],
    ['the server has another owner', 'servers', () => ({ id: server }), { owner: newBytes() }, { owner }],
    ['the server was taken over in between', 'servers', () => ({ id: server }), { owner_epoch: 6 }, { owner_epoch: 5 }],
    ['the server is lost', 'servers', () => ({ id: server }), { state: 'LOST' }, { state: 'LIVE' }],
    ['the server is drained', 'servers', () => ({ id: server }), { drained: true }, { drained: false }],
  ] as const)
    it(`is not taken when ${what}, and what is accepted waits its turn`, async () => {
      await lend(2);
      await db()(table).where(key()).update(to);
      expect(await standing((await make()).id)).to.deep.equal({ ready: 1, running: 0 });
      await db()(table).where(key()).update(back);
      await db()('ready').delete();
      expect(await standing((await make()).id), 'the loan is over').to.deep.equal({ ready: 1, running: 0 });
      await db()('ready').delete();
    });

  it('is not taken when the workspace may run only so many', async () => {
    await lend();
    await db()('quotas').insert({ workspace: workspace(), running: 5 });
    expect(await standing((await make()).id)).to.deep.equal({ ready: 1, running: 0 });
    await db()('quotas').delete();
    await db()('ready').delete();
  });

  it('is not taken past what waits in the lane', async () => {
    const first = await make();
    await lend();
    expect(await standing((await make()).id)).to.deep.equal({ ready: 1, running: 0 });
    expect((await standing(first.id)).ready).to.equal(1);
    await db()('ready').delete();
  });

  it('is left alone while somebody takes the server over: accepting waits for no dispatcher', async () => {
    await lend();
    const other = await db().transaction();
    await other('servers').where({ id: server }).update({ owner_epoch: 6 });
    const made = await Promise.race([make(), pause(2000)]);
    await other.rollback();
    expect(made, 'it waited').to.not.equal(undefined);
    expect(await standing(made?.id ?? '')).to.deep.equal({ ready: 1, running: 0 });
    await db()('ready').delete();
  });

  it('is for those that come together, as far as there are enough', async () => {
    await lend(8);
    const made = await Promise.all(Array.from({ length: 20 }, () => make()));
    const found = await Promise.all(made.map(({ id }) => standing(id)));
    expect(found.filter(({ ready, running }) => ready + running !== 1)).to.deep.equal([]);
    expect(found.filter(({ running }) => running === 1).length).to.be.at.most(8);
  });
});
