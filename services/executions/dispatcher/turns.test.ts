import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { type Bus, openBus } from '#platform/bus.ts';
import { readSettings, setting, text } from '#platform/config.ts';
import { openLog } from '#platform/log.ts';
import { until } from '../../../tests/world.ts';
import * as notices from '../engine/notices.ts';
import { CONSUMER, ensureWork, hurry, ring, untilRung, workStream } from '../engine/tickets.ts';
import { openTurns, type Turns } from './turns.ts';

const { natsUrl } = readSettings({
  natsUrl: setting('MILLRACE_TEST_NATS_URL', text.default('nats://127.0.0.1:44222'), 'the broker of tests'),
});

describe('turns', function () {
  this.timeout(20_000);
  const log = openLog('silent');
  const open: Turns[] = [];
  let bus: Bus;

  beforeEach(async () => {
    bus = openBus({ natsUrl, natsPrefix: `t${randomBytes(5).toString('hex')}` }, log);
    await bus.connection();
    await ensureWork((await bus.jetstream()).jsm, bus.prefix);
  });
  afterEach(async () => {
    for (const turns of open.splice(0)) await turns.stop();
    await (await bus.jetstream()).jsm.streams.delete(workStream(bus.prefix)).catch(() => undefined);
    await bus.stop();
  });

  function take(claim: (lanes: readonly number[]) => Promise<void>, credits: () => number = () => 32): Turns {
    const turns = openTurns({ bus, log, credits, held: () => 1, hasDue: () => false, claim });
    open.push(turns);
    return turns;
  }
  const stored = async () => (await (await bus.jetstream()).jsm.streams.info(workStream(bus.prefix))).state.messages;
  const flushed = async () => (await bus.connection()).flush();

  it('keeps one ticket of a lane, however often it is rung', async () => {
    for (let time = 0; time < 100; time += 1) ring(bus, [7, 8]);
    await until('the tickets', async () => (await stored()) === 2);
    await flushed();
    expect(await stored()).to.equal(2);
  });

  it('sees that a lane has its ticket, and that the broker stores none', async () => {
    for (let time = 0; time < 2; time += 1) await untilRung(bus, 7);
    expect(await stored()).to.equal(1);
    await (await bus.jetstream()).jsm.streams.update(workStream(bus.prefix), { max_bytes: 1 });
    let fault = '';
    await untilRung(bus, 8).catch((error: Error) => (fault = error.message));
    expect(fault).to.equal('maximum bytes exceeded');
    await (await bus.jetstream()).jsm.streams.delete(workStream(bus.prefix));
    await untilRung(bus, 8).catch((error: Error) => (fault = error.message));
    expect(fault).to.match(/no responders/);
  });

  it('hands out a turn for what comes while the lane is being claimed', async () => {
    const claims: (readonly number[])[] = [];
    take(async (lanes) => {
      claims.push(lanes);
      if (claims.length > 1) return;
      ring(bus, [7]); // accepted after the claim has read: the ticket in hand must not refuse this one
      await flushed();
    });
    ring(bus, [7]);
    await until('the second turn', () => claims.length === 2, 3000);
    expect(claims).to.deep.equal([[7], [7]]);
  });

  it('is idle while nothing waits but tickets of what was started by its notice', async () => {
    const turns = take(async () => undefined);
    const { jsm } = await bus.jetstream();
    let seen = 0;
    for (let count = 0; count < 40; count += 1) {
      hurry(bus, new Set([7]));
      const { num_ack_pending: inHand } = await jsm.consumers.info(workStream(bus.prefix), CONSUMER);
      if (inHand === 1 && turns.isIdle()) seen += 1;
    }
    expect(seen).to.be.greaterThan(5); // a ticket that is being given to a claim is still in hand, and may be seen once or twice
  });

  it('serves lanes in turn, however busy one of them is', async () => {
    const turns: number[] = [];
    for (let lane = 1; lane <= 40; lane += 1) ring(bus, [lane]);
    await until('the tickets', async () => (await stored()) === 40);
    take(async (lanes) => {
      if (new Set(turns).size < 40) turns.push(...lanes);
      if (lanes.includes(1)) ring(bus, [1]); // it always has more
      await flushed();
    });
    await until('all lanes to be served', () => new Set(turns).size === 40);
    expect(turns.filter((lane) => lane === 1).length).to.be.below(6);
  });

  it('leaves tickets to others while it has no credits, and takes them when it has', async () => {
    let credits = 0;
    const mine: number[] = [];
    const turns = take(
      async (lanes) => void mine.push(...lanes),
      () => credits,
    );
    const others: number[] = [];
    take(async (lanes) => void others.push(...lanes));
    ring(bus, [1, 2, 3]);
    await until('the other one to take them', () => others.length === 3);
    expect(mine).to.deep.equal([]);
    await open.pop()?.stop();
    ring(bus, [4]);
    await until('the ticket', async () => (await stored()) === 1);
    credits = 1;
    turns.capacity();
    await until('a turn', () => mine.length === 1);
    expect(mine).to.deep.equal([4]);
  });

  it('claims at a notice when it is idle, and leaves it to the tickets when every credit is used', async () => {
    let credits = 1;
    const claims: (readonly number[])[] = [];
    take(
      async (lanes) => {
        claims.push(lanes);
        credits = 0;
      },
      () => credits,
    );
    await flushed();
    bus.notify(notices.work, '7');
    await until('a claim without a ticket', () => claims.length === 1);
    bus.notify(notices.work, '8');
    await flushed();
    credits = 1;
    bus.notify(notices.work, '9');
    await flushed();
    hurry(bus, new Set([10]));
    await until('the claim by ticket', () => claims.length === 2);
    expect(claims).to.deep.equal([[7], [10]]);
  });

  it('goes on when the broker has forgotten stream and consumer', async () => {
    const taken: number[] = [];
    take(async (lanes) => void taken.push(...lanes));
    ring(bus, [1]);
    await until('the first turn', () => taken.length === 1);
    const { jsm } = await bus.jetstream();
    await jsm.streams.delete(workStream(bus.prefix));
    await ensureWork(jsm, bus.prefix);
    ring(bus, [2]);
    await until('a turn', () => taken.includes(2));
  });
});
