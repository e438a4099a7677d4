import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInbox, headers } from '@nats-io/transport-node';
import { expect } from 'chai';
import { type Bus, eventsStream, openBus } from '#platform/bus.ts';
import { type Consumer, consume } from '#platform/consumer.ts';
import { openLog } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import { readChoices } from '../../../deploy/local/environment.ts';
import { freePort } from '../../../deploy/local/ports.ts';
import { brokerReady } from '../../../deploy/local/ready.ts';
import { until } from '../../../tests/world.ts';
import { CONSUMER, ensureWork, openRenew, type Renew, ring, workStream } from '../engine/tickets.ts';
import { openTurns, type Turns } from './turns.ts';

// As a power cut may leave it: what the stream wrote last is lost, what its consumer wrote is not.
describe('a broker whose consumer is ahead of its stream', function () {
  this.timeout(60_000);
  const folder = mkdtempSync(join(tmpdir(), 'millrace-restored-'));
  const messagesOf = (stream: string) => join(folder, 'jetstream', '$G', 'streams', stream, 'msgs');
  const descriptionOf = (stream: string) => join(messagesOf(stream), '../meta.sum');
  const kept = join(folder, 'kept');
  let port: number;
  let stopBroker: () => Promise<void> = async () => undefined;
  let bus: Bus;
  let turns: Turns | undefined;
  const taken: number[] = [];
  const seen: string[] = [];

  async function startBroker(): Promise<void> {
    const child = spawn(readChoices(process.env).natsServer, ['-js', '-sd', folder, '-a', '127.0.0.1', '-p', String(port)], {
      stdio: 'ignore',
    });
    stopBroker = async () => {
      child.kill('SIGTERM');
      if (child.exitCode === null) await once(child, 'exit');
    };
    await until('the broker', () => brokerReady(`nats://127.0.0.1:${port}`).catch(() => undefined), 20_000);
    await until('the connection', () => bus.state().then(() => true, () => false), 20_000); // biome-ignore format: a probe
  }
  function restore(stream: string): void {
    rmSync(messagesOf(stream), { recursive: true });
    cpSync(kept, messagesOf(stream), { recursive: true });
    rmSync(kept, { recursive: true });
  }
  const jsm = async () => (await bus.jetstream()).jsm;
  const stored = async () => (await (await jsm()).streams.info(workStream('lab'))).state.messages;
  const consumerInfo = async () => (await jsm()).consumers.info(workStream('lab'), CONSUMER);
  const look = async (renew: Renew) => {
    await pause(1000); // as the sweep does
    return renew(await jsm(), 'lab');
  };
  const take = () => {
    turns = openTurns({
      ...{ bus, log: openLog('silent'), credits: () => 32, held: () => 1, hasDue: () => false },
      claim: async (lanes) => void taken.push(...lanes),
    });
  };

  before(async () => {
    port = await freePort();
    bus = openBus({ natsUrl: `nats://127.0.0.1:${port}`, natsPrefix: 'lab', natsReplicas: 1 }, openLog('silent'));
    await startBroker();
  });
  after(async () => {
    await turns?.stop();
    await bus.stop();
    await stopBroker();
    rmSync(folder, { recursive: true, force: true });
  });

  // Takes tickets as a dispatcher does that is killed before it acknowledges them.
  async function takeAndDie(count: number): Promise<void> {
    const connection = await bus.connection();
    const inbox = createInbox();
    connection.subscribe(inbox, { max: count });
    connection.publish(`$JS.API.CONSUMER.MSG.NEXT.${workStream('lab')}.${CONSUMER}`, `{"batch":${count}}`, { reply: inbox });
    await until('the tickets', async () => (await consumerInfo()).num_ack_pending === count);
  }

  for (const { what, unacknowledged } of [
    { what: 'passes tickets over', unacknowledged: [] },
    { what: 'waits for tickets that are lost', unacknowledged: [10, 11] },
  ])
    it(`${what}, until it is noticed`, async () => {
      await ensureWork(await jsm(), 'lab');
      ring(bus, [7]);
      await until('the ticket', async () => (await stored()) === 1);
      await stopBroker();
      cpSync(messagesOf(workStream('lab')), kept, { recursive: true });
      await startBroker();
      take();
      for (const lane of [7, 8, 9]) {
        if (lane !== 7) ring(bus, [lane]);
        await until(`the turn of ${lane}`, () => taken.includes(lane));
      }
      await until('the acks', async () => (await stored()) === 0);
      await turns?.stop();
      ring(bus, unacknowledged);
      await until('the others', async () => (await stored()) === unacknowledged.length);
      if (unacknowledged.length > 0) await takeAndDie(unacknowledged.length);
      await stopBroker();
      restore(workStream('lab'));
      if (unacknowledged.length > 0) truncateSync(descriptionOf(workStream('lab'))); // the stream is made anew, with what is there
      taken.length = 0;
      await startBroker();
      await ensureWork(await jsm(), 'lab');
      expect((await consumerInfo()).num_ack_pending).to.equal(unacknowledged.length);
      take();
      ring(bus, [7]); // refused: there is one, which nobody is given
      const renew = openRenew();
      await until('it to be noticed', () => look(renew), 10_000);
      expect(taken).to.deep.equal([]);
      await ensureWork(await jsm(), 'lab');
      await until('the turn', () => taken.includes(7));
      ring(bus, [8]);
      await until('the turn of a ticket that came later', () => taken.includes(8));
      await turns?.stop();
    });

  for (const isMadeAnew of [false, true])
    it(`gives a consumer of events what comes after what was lost${isMadeAnew ? ', also of a stream that is made anew' : ''}`, async () => {
      seen.length = 0;
      const consumer: Consumer = {
        ...{ name: 'lab', area: 'things', db: undefined as never, handle: async () => undefined },
        concerns: ({ id }) => {
          seen.push(id);
          return false; // nothing of it goes to a database
        },
      };
      const tell = async (id: string) => {
        const all = headers();
        all.set('ce-id', id);
        await (await bus.jetstream()).js.publish('lab.events.things.1.made', '', { headers: all });
      };
      let stop = consume(bus, openLog('silent'), consumer);
      await until('the stream', async () => (await jsm()).streams.info(eventsStream('lab')).catch(() => undefined));
      await tell('one');
      await until('the first', () => seen.includes('one'));
      await stop();
      await stopBroker();
      cpSync(messagesOf(eventsStream('lab')), kept, { recursive: true });
      await startBroker();
      stop = consume(bus, openLog('silent'), consumer);
      for (const id of ['two', 'three', 'four']) await tell(id);
      await until('the others', () => seen.includes('four'));
      await stop();
      await stopBroker();
      restore(eventsStream('lab'));
      if (isMadeAnew) truncateSync(descriptionOf(eventsStream('lab')));
      await startBroker();
      stop = consume(bus, openLog('silent'), consumer);
      await until('the stream', () => tell('five').then(() => true, () => undefined), 10_000); // biome-ignore format: a probe
      await until('what came later', () => seen.includes('five'));
      await stop();
    });

  it('is left alone while nobody waits for tickets, and while those that were taken are delivered again', async () => {
    await ensureWork(await jsm(), 'lab');
    const renew = openRenew();
    ring(bus, [1, 2, 3]);
    await until('the tickets', async () => (await stored()) === 3);
    for (let count = 0; count < 8; count += 1) expect(await renew(await jsm(), 'lab')).to.equal(false);
    await takeAndDie(3);
    const connection = await bus.connection();
    const inbox = createInbox();
    connection.subscribe(inbox);
    connection.publish(`$JS.API.CONSUMER.MSG.NEXT.${workStream('lab')}.${CONSUMER}`, '{"batch":1000}', { reply: inbox });
    for (let count = 0; count < 8; count += 1) expect(await look(renew)).to.equal(false);
    expect((await consumerInfo()).num_waiting).to.equal(1);
  });
});
