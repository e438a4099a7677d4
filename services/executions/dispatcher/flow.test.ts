import { expect } from 'chai';
import { Result_Outcome } from '#gen/millrace/runner/v1/job.ts';
import { openBus } from '#platform/bus.ts';
import type { Db } from '#platform/db.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { startWorld, until, type World } from '../../../tests/world.ts';
import { accept, breaches, publish, schemaOnly } from '../engine/fixture.test.ts';
import { askToStop } from '../engine/leave.ts';
import { decodeLines } from '../engine/log-codec.ts';
import * as notices from '../engine/notices.ts';
import { ring } from '../engine/tickets.ts';
import { SHORT } from './fixture.test.ts';
import * as metrics from './metrics.ts';
import { module as dispatcher } from './module.ts';
import { type Peer, startPeer } from './peer.test.ts';

const FINAL = ['SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT', 'SKIPPED'];

describe('a dispatcher and servers that do as they are told', function () {
  this.timeout(60_000);
  let world: World;
  let db: Db;
  let automation: Buffer;
  let bus: ReturnType<typeof openBus>;
  const peers: Peer[] = [];

  before(async () => {
    world = await startWorld({ targets: ['executions', 'dispatcher'], modules: [schemaOnly, dispatcher], env: SHORT });
    db = world.db('executions');
    const lane = { queue: 'q', selector: 'any', fairness_key: '', state: 'ACTIVE', weight: 1 };
    await db('lanes').insert(Array.from({ length: 60 }, (_, index) => ({ ...lane, lane: index + 1, workspace: Buffer.alloc(16, index) })));
    bus = openBus(world.config, openLog('silent'));
    await bus.connection();
  });
  beforeEach(async () => {
    automation = await publish(db);
  });
  afterEach(async () => {
    for (const peer of peers.splice(0)) await peer.vanish();
    for (const table of ['servers', 'ready', 'waiting', 'timers', 'running', 'slots', 'limits', 'attempts', 'executions'])
      await db(table).delete();
    await until('the sessions to end', async () => (await metrics.servers.get()).values.every(({ value }) => value === 0));
  });
  after(async () => {
    await bus.stop();
    await world.stop();
  });

  async function join(options: Parameters<typeof startPeer>[0] = {}): Promise<Peer> {
    const peer = await startPeer(options);
    peers.push(peer);
    await peer.register(db);
    bus.notify(notices.servers);
    await until('the session to open', () => peer.epochs.length > 0);
    return peer;
  }
  const start = async (count: number, planned: Parameters<typeof accept>[1][number] = {}): Promise<Buffer[]> => {
    const ids = await accept(
      db,
      Array.from({ length: count }, () => ({ automation, ...planned })),
    );
    ring(bus, [planned.lane ?? 1]);
    return ids;
  };
  const row = (id: Buffer) => db('executions').where({ id }).first();
  const ended = (id: Buffer) => until('it to end', async () => {
      const found = await row(id);
      return FINAL.includes(found.state) ? found : undefined;
    }); // biome-ignore format: a probe
  const texts = async (id: Buffer, attempt = 1): Promise<string[]> => {
    const chunks = await db('log_chunks').where({ execution: id, attempt }).orderBy('first_seq');
    const lines = chunks.flatMap(({ codec, body }) => decodeLines(codec, body));
    expect(lines.map(({ seq }) => seq)).to.deep.equal(lines.map((_, index) => index));
    return lines.map(({ text }) => text);
  };
  const clean = async () => expect(await breaches(db)).to.deep.equal({ misplaced: 0, slots: 0 });

  it('ends 1,000 executions in 50 lanes once each', async () => {
    const peer = await join({ slots: 64 });
    const ids = await accept(
      db,
      Array.from({ length: 1000 }, (_, index) => ({ automation, lane: (index % 50) + 1 })),
    );
    ring(bus, Array.from({ length: 50 }, (_, lane) => lane + 1)); // biome-ignore format: a line
    await until(
      'all to end',
      async () => (await db('executions').count({ n: '*' }).where({ state: 'SUCCEEDED' }).first())?.n === ids.length,
      30_000,
    );
    expect(new Set(peer.jobs.map(({ job }) => job.executionId)).size).to.equal(1000);
    expect(peer.jobs).to.have.length(1000);
    expect((await db('attempts').count({ n: '*' }).first())?.n).to.equal(1000);
    expect((await db('executions').count({ n: '*' }).where({ version: 2 }).first())?.n).to.equal(1000);
    await clean();
    await until('the server to forget all', () => peer.held() === 0);
  });

  it('never has more running than a limit allows, and lets the first waiter in', async () => {
    let now = 0;
    let most = 0;
    const peer = await join({
      slots: 32,
      act(job) {
        job.start();
        most = Math.max(most, ++now);
        setTimeout(() => {
          now -= 1;
          job.end();
        }, 5);
      },
    }); // biome-ignore format: an act
    await db('limits').insert({ limit_key: 'k', max: 3, used: 3 });
    const ids = await accept(
      db,
      Array.from({ length: 60 }, (_, index) => ({ automation, limitKey: 'k', waits: index >= 3 })),
    );
    ring(bus, [1]);
    await until(
      'all to end',
      async () => (await db('executions').count({ n: '*' }).where({ state: 'SUCCEEDED' }).first())?.n === 60,
      30_000,
    );
    expect(most).to.be.within(1, 3);
    expect(peer.jobs.map(({ job }) => job.executionId)).to.have.members(ids.map((id) => fromBytes('execution', id)));
    const order = peer.jobs.map(({ job }) => ids.findIndex((id) => id.equals(toBytes('execution', job.executionId))));
    for (const [index, place] of order.entries()) expect(Math.abs(index - place), `the ${place}. came as the ${index}.`).to.be.below(6);
    expect(await db('limits').first()).to.include({ used: 0 });
    await clean();
  });

  it('starts the most urgent first, and in the order of their coming, whatever came before', async () => {
    const peer = await join({ slots: 1, act: (job) => job.start() });
    const [running] = (await start(1)) as [Buffer];
    await until('it to start', () => peer.jobs.length === 1);
    const ids = await accept(
      db,
      [5, 9, 0, 5, 0].map((priority) => ({ automation, priority })),
    );
    for (let index = 0; index < 6; index += 1) (await until('the next', () => peer.jobs[index])).end();
    for (const id of [running, ...ids]) await ended(id);
    const order = peer.jobs.slice(1).map(({ job }) => ids.findIndex((id) => fromBytes('execution', id) === job.executionId));
    expect(order).to.deep.equal([2, 4, 0, 3, 1]);
  });

  it('gives back what a server refuses, and counts nothing', async () => {
    let refusals = 0;
    const peer = await join({ refuse: () => ++refusals <= 3 });
    const [id] = (await start(1)) as [Buffer];
    await ended(id);
    expect(refusals).to.equal(4);
    expect(peer.jobs[0]?.job.attempt).to.equal(1);
    expect(await row(id)).to.include({ state: 'SUCCEEDED', attempt_count: 1, version: 2 });
    await clean();
  });

  it('starts again, with the same attempt number, what a server never had', async () => {
    let ignored = 0;
    const peer = await join({ ignores: () => ++ignored === 1 });
    const [id] = (await start(1)) as [Buffer];
    await until('the start to be lost', () => ignored === 1);
    peer.hangUp();
    await ended(id);
    expect(peer.jobs.map(({ job }) => job.attempt)).to.deep.equal([1]);
    expect(await row(id)).to.include({ state: 'SUCCEEDED', attempt_count: 1 });
    await clean();
  });

  it('keeps a log gapless when the streams break again and again', async () => {
    const peer = await join({ act: (job) => job.start() });
    const [id] = (await start(1)) as [Buffer];
    const job = await until('the job', () => peer.jobs[0]);
    const said: string[] = [];
    for (let round = 0; round < 6; round += 1) {
      const sessions = peer.epochs.length;
      for (let line = 0; line < 50; line += 1) {
        said.push(`${round}.${line}`);
        job.say(`${round}.${line}`);
        if (line === 25) peer.hangUp();
      }
      job.resend(); // what was confirmed before comes again, too
      await until('the session to open again', () => peer.epochs.length > sessions);
    }
    job.end();
    expect(await ended(id)).to.include({ state: 'SUCCEEDED', attempt_count: 1 });
    expect(await texts(id)).to.deep.equal(said);
    expect(await db('attempts').where({ execution: id }).first()).to.include({ log_count: 300, state: 'SUCCEEDED' });
    expect(peer.jobs).to.have.length(1);
  });

  it('drops what does not count, and writes nothing of it', async () => {
    const peer = await join({ act: (job) => job.start() });
    const [id] = (await start(1)) as [Buffer];
    const stale = await until('the job', () => peer.jobs[0]);
    stale.say('one');
    await until('the line to be durable', async () => (await texts(id)).length === 1);
    await db('running')
      .where({ execution: id })
      .update({ claim_id: Buffer.alloc(16, 7) }); // somebody else claims it
    stale.say('two');
    stale.end();
    await until('it to be dropped', () => peer.dropped.some((claim) => claim.equals(stale.job.claimId)));
    expect(await texts(id)).to.deep.equal(['one']);
    expect(await row(id)).to.include({ state: 'QUEUED', version: 1 });
  });

  it('takes lines and a result in time from one that was asked to stop', async () => {
    const peer = await join({ act: (job) => job.start() });
    const ids = await start(3);
    const jobs = await until('the jobs', () => (peer.jobs.length === 3 ? peer.jobs : undefined));
    await until('their start', async () => (await db('running').where({ started: true })).length === 3);
    for (const execution of ids) {
      const server = await db.transaction((tx) => askToStop({ query: (sql) => tx.raw(sql) }, execution, 'enough'));
      const isTold = execution !== ids[0]; // a notice may be lost: the next look finds it
      if (isTold) bus.notify(notices.cancel(fromBytes('server', server as Buffer)));
    }
    await until('the cancels', () => new Set(peer.cancelled.map((claim) => claim.toString('hex'))).size === 3);
    for (const job of jobs) job.say('cleaning up');
    const idOf = (index: number) => toBytes('execution', jobs[index]?.job.executionId ?? '');
    jobs[0]?.end({ outcome: Result_Outcome.CANCELLED, outputJson: '' });
    jobs[1]?.end({ outcome: Result_Outcome.SUCCEEDED, outputJson: '7' });
    jobs[2]?.end({ outcome: Result_Outcome.FAILED, outputJson: '', errorType: 'KeyboardInterrupt' });
    expect(await ended(idOf(0))).to.include({ state: 'CANCELLED' });
    expect(await ended(idOf(1))).to.include({ state: 'SUCCEEDED', output: '7' });
    expect(await ended(idOf(2))).to.include({ state: 'CANCELLED' });
    for (const index of [0, 1, 2]) expect(await texts(idOf(index))).to.deep.equal(['cleaning up']);
    await clean();
  });

  it('retries after the backoff, then gives up', async () => {
    automation = await publish(db, { retryPolicy: { maxAttempts: 3, initialInterval: { seconds: 0, nanos: 2e8 } } });
    const peer = await join({
      act(job) {
        job.start();
        job.say(`attempt ${job.job.attempt}`);
        job.end({ outcome: Result_Outcome.FAILED, outputJson: '', errorType: 'KeyError', errorMessage: "'a'", traceback: 'x' });
      },
    });
    const [id] = (await start(1)) as [Buffer];
    const found = await ended(id);
    expect(found).to.include({ state: 'FAILED', attempt_count: 3, version: 4 });
    expect(found.error).to.deep.equal({ type: 'KeyError', message: "'a'", traceback: 'x', retryable: false });
    expect(peer.jobs.map(({ job }) => job.attempt)).to.deep.equal([1, 2, 3]);
    const attempts = await db('attempts').where({ execution: id }).orderBy('number');
    expect(attempts.map(({ state, error }) => [state, error.retryable])).to.deep.equal([['FAILED', true], ['FAILED', true], ['FAILED', false]]); // biome-ignore format: rows
    for (const attempt of [1, 2, 3]) expect(await texts(id, attempt)).to.deep.equal([`attempt ${attempt}`]);
    await clean();
  });

  it('starts what is scheduled when it is due, and ends what waited too long', async () => {
    await join();
    const [later] = (await accept(db, [{ automation, inMs: 400 }])) as [Buffer];
    const [late] = (await accept(db, [{ automation, lane: 2, inMs: 60_000, expiresInMs: 300 }])) as [Buffer];
    const { create_time, start_time } = await ended(later);
    expect(start_time - create_time).to.be.at.least(399);
    const found = await ended(late);
    expect(found).to.include({ state: 'TIMED_OUT', attempt_count: 0 });
    expect(found.error.type).to.equal('ScheduleToStartTimeout');
    await clean();
  });

  it('ends what its server does not end in time', async () => {
    automation = await publish(db, { retryPolicy: { maxAttempts: 1 } });
    const peer = await join({ act: (job) => job.start() });
    const ids = await start(2);
    await until('their start', async () => (await db('running').where({ started: true })).length === 2);
    await db('running').where({ execution: ids[1] }).update({ state: 'CANCELLING' });
    await db('running').update({ deadline: db.raw('NOW(6)') });
    expect((await ended(ids[0] as Buffer)).error.type).to.equal('StartToCloseTimeout');
    expect(await ended(ids[1] as Buffer)).to.include({ state: 'CANCELLED' });
    await until('the jobs to be dropped', () => peer.dropped.length >= 2);
    await clean();
  });

  it('gives up a server that is gone: what had not started runs elsewhere, what had is retried or fails as the automation wants', async () => {
    const failing = await publish(db, { onLost: 2 });
    const first = await join({ slots: 3, act: (job) => (job.job.inputJson === '{"start":true}' ? job.start() : undefined) });
    const [retried] = (await start(1, { input: '{"start":true}' })) as [Buffer];
    const [failed] = (await start(1, { automation: failing, input: '{"start":true}' })) as [Buffer];
    const [unstarted] = (await start(1, { input: '{}' })) as [Buffer];
    await until('all three to be there', () => first.jobs.length === 3);
    await until('two to start', async () => (await db('running').where({ started: true })).length === 2);
    await first.vanish();
    const second = await join({ slots: 8 });
    expect(await ended(failed)).to.include({ state: 'FAILED', attempt_count: 1 });
    expect((await row(failed)).error).to.include({ type: 'WorkerLost' });
    expect(await ended(unstarted)).to.include({ state: 'SUCCEEDED', attempt_count: 1 });
    expect(await ended(retried)).to.include({ state: 'SUCCEEDED', attempt_count: 2 });
    const states = async (id: Buffer) => (await db('attempts').where({ execution: id }).orderBy('number')).map(({ state }) => state);
    expect(await states(retried)).to.deep.equal(['LOST', 'SUCCEEDED']);
    expect(await states(failed)).to.deep.equal(['LOST']);
    expect(await states(unstarted)).to.deep.equal(['SUCCEEDED']);
    expect(second.jobs.find(({ job }) => job.executionId === fromBytes('execution', unstarted))?.job.attempt).to.equal(1);
    expect(await db('servers').where({ id: first.id }).first()).to.include({ state: 'LOST', owner: null });
    await clean();
  });

  it('runs everything although the broker forgets all', async () => {
    await join({ slots: 4, act: (job) => void setTimeout(() => [job.start(), job.end()], 10) });
    const ids = await start(100);
    const { jsm } = await bus.jetstream();
    for (let wipe = 0; wipe < 3; wipe += 1) {
      const before = (await db('executions').count({ n: '*' }).where({ state: 'SUCCEEDED' }).first())?.n as number;
      await until('the stream of tickets', () => jsm.streams.delete(`${world.config.natsPrefix}_WORK`).catch(() => false));
      await until(
        'some to end',
        async () =>
          ((await db('executions').count({ n: '*' }).where({ state: 'SUCCEEDED' }).first())?.n as number) >=
          Math.min(before + 8, ids.length),
      );
    }
    await until(
      'all to end',
      async () => (await db('executions').count({ n: '*' }).where({ state: 'SUCCEEDED' }).first())?.n === 100,
      20_000,
    );
    await clean();
  });
});
