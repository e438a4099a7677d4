import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { expect } from 'chai';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import { ControlServiceService } from '#gen/millrace/executions/v1/control_service.ts';
import { Execution, Execution_State } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionEvent } from '#gen/millrace/executions/v1/execution_event.ts';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { brokerAddress } from '#platform/broker-address.ts';
import { schemaOf } from '#platform/db.ts';
import { modules, SHORT } from '../../services/executions/dispatcher/fixture.test.ts';
import { type Peer, startPeer } from '../../services/executions/dispatcher/peer.test.ts';
import { publish } from '../../services/executions/fixture.test.ts';
import { isLong, longer } from '../long.ts';
import { type Person, startWorld, until, type World } from '../world.ts';
import { check, type Happening } from './checker.ts';
import { act, KINDS, type Kind } from './failpoint-work.ts';

const ROOT = join(import.meta.dirname, '../..');
const AT_ONCE = 6; // processes that are going to be killed
const OPEN = 60; // executions that are not known to have ended
const PEERS = 4;
const PATIENCE_MS = 60_000;
const TIMES = 4; // that a process is killed at each place in a round
const PROGRESS = join(ROOT, 'build/chaos/failpoints'); // the long form takes hours, and goes on where it ended; ROUNDS= of this many
const AWAY = ['ECONNREFUSED', 'ECONNRESET', 'PROTOCOL_CONNECTION_LOST', 'ER_SERVER_SHUTDOWN'];
const RARE = ['claim.taken', 'overdue.', 'expire.', 'takeover.', 'refused.', 'hold.', 'cancel.'];

// Every place in the code, read from the code.
const places = [...globSync('services/executions/**/*.ts', { cwd: ROOT }), 'services/platform/outbox.ts']
  .filter((file) => !file.endsWith('.test.ts'))
  .flatMap((file) => [...readFileSync(join(ROOT, file), 'utf8').matchAll(/failpoint\('([a-z_.]+)'\)/g)].map(([, name]) => name ?? ''))
  .filter((place) => !place.startsWith('artifact.')) // those have a test of their own, where artifacts are sent
  .sort();

const roundsDone = (): number => (existsSync(PROGRESS) ? Number(readFileSync(PROGRESS, 'utf8')) : 0);
const chance = (share: number): boolean => Math.random() < share;
const pick = <T>(all: readonly T[]): T => all[Math.floor(Math.random() * all.length)] as T;
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
// By a database that may be started again meanwhile: MariaDB was seen to crash when a connection that was sorting went away.
async function persistently<T>(work: () => Promise<T>): Promise<T> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!AWAY.includes((error as { code?: string }).code ?? '') || performance.now() > end) throw error;
      await sleep(100);
    }
  }
}
const stateOf = ({ state }: Execution): string => Object.entries(Execution_State).find(([, value]) => value === state)?.[0] ?? '';

describe('a process that is killed between accepting and finishing', function () {
  const rounds = longer(`rounds of ${TIMES} kills at each failpoint`, 1, 50);
  const first = isLong ? roundsDone() % rounds : 0;
  const last = Math.min(rounds, first + Number(process.env.ROUNDS ?? rounds));
  this.timeout(900_000);
  let world: World;
  let person: Person;
  let events: NatsConnection;
  const history: Happening[] = [];
  const peers: Peer[] = [];
  const automations: Record<string, string> = {};
  const processes = new Set<ChildProcess>();
  const outputs: (() => string)[] = [];
  let isOver = false; // nothing more is to be begun
  const live = new Set<ReturnType<typeof dial>>();
  const clients = new Map<string, ReturnType<typeof dial>>();
  const dial = (address: string) => ({
    ...world.as(person, ExecutionServiceService, address),
    ...world.as(person, ControlServiceService, address),
  });
  function clientAt(address: string): ReturnType<typeof dial> {
    const client = clients.get(address) ?? dial(address);
    clients.set(address, client);
    return client;
  }

  before(async () => {
    world = await startWorld({ targets: ['executions'], modules, env: { ...SHORT, MILLRACE_DISPATCHER_SERVER_LEASE_MS: '2000' } });
    person = world.person();
    events = await connect(brokerAddress(world.config.natsUrl));
    for (const [kind, { spec }] of Object.entries(KINDS)) {
      automations[kind] = await publish(world, {
        workspace: person.workspace,
        specs: [AutomationSpec.fromPartial({ source: 'pass', ...spec } as object)],
      });
    }
    for (const verb of ['created', 'ended'] as const) {
      events.subscribe(`${world.config.natsPrefix}.events.executions.*.${verb}`, {
        callback: (_, message) => {
          const event = message.headers?.get('ce-id') ?? '';
          for (const { execution } of ExecutionEvent.decode(message.data).items) {
            if (execution) history.push({ what: 'told', event, type: verb, id: execution.id });
          }
        },
      });
    }
    await events.flush();
    const first = launch({}); // what it compiles is kept for the others
    await until('a process to be ready', () => addressIn(first.output()), 120_000);
    first.child.kill('SIGTERM');
    await until('it to end', () => hasEnded(first.child), 60_000);
  });
  after(async () => {
    isOver = true;
    for (const child of processes) child.kill('SIGKILL');
    for (const peer of peers) await peer.vanish();
    await events?.close();
    await world?.stop();
  });

  async function addPeer(): Promise<void> {
    const peer = await startPeer({ slots: 8, act, refuse: () => chance(0.03) });
    peers.push(peer);
    await persistently(() => peer.register(world.db('executions')));
  }

  function launch(env: Record<string, string>): { child: ChildProcess; output(): string } {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'process.fixture.ts')], {
      cwd: ROOT,
      env: { ...world.env, PATH: process.env.PATH ?? '', NODE_COMPILE_CACHE: join(world.folder, 'compiled'), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const parts: string[] = [];
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data) => parts.push(String(data)));
    processes.add(child);
    outputs.push(() => parts.join(''));
    child.once('exit', () => processes.delete(child));
    return { child, output: () => parts.join('') };
  }
  const hasEnded = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;
  const addressIn = (output: string) => /"grpcAddress":"([^"]+)".*"ready"/.exec(output)?.[1];

  // Lives until it passes the place for the given time.
  async function doom(place: string, passage: number): Promise<void> {
    const { child, output } = launch({ MILLRACE_FAILPOINT: `${place}:exit:${passage}` });
    const what = `a process to be killed at ${place}`;
    const address = await until(what, () => addressIn(output()) ?? (hasEnded(child) ? 'gone' : undefined), 120_000);
    const client = address === 'gone' ? undefined : clientAt(address);
    if (client) live.add(client);
    await until(what, () => hasEnded(child), 120_000).finally(() => live.delete(client as never));
    expect(child.signalCode, `${place}: ${output()}`).to.equal('SIGKILL');
  }

  // By any process, or one that is never killed; when it dies meanwhile, by another, as a client does that has kept its key.
  async function patiently<T>(call: (client: ReturnType<typeof dial>) => Promise<T>, whose?: 'ours'): Promise<T> {
    const end = performance.now() + PATIENCE_MS;
    for (let round = 0; ; round += 1) {
      const client = !whose && live.size > 0 && round < 20 ? pick([...live]) : clientAt(world.grpcAddress);
      try {
        return await call(client);
      } catch (error) {
        const { code } = error as { code?: number };
        if (code !== 14 && code !== 4 && code !== 10 && code !== 8) throw error;
        if (performance.now() > end) throw error;
        await sleep(20);
      }
    }
  }

  async function accept(n: number): Promise<string> {
    const kind = pick(Object.keys(KINDS));
    const { input, laterMs, next, isKeyless = false } = KINDS[kind] as Kind;
    const scheduleTime = laterMs === undefined ? undefined : new Date(Date.now() + laterMs);
    const request = { execution: Execution.fromPartial({ automationId: automations[kind] ?? '', input: { ...input, n }, ...(scheduleTime ? { scheduleTime } : {}) } as object), requestId: isKeyless ? '' : randomUUID() }; // biome-ignore format: a row
    const body = JSON.stringify(request);
    const create = async () => {
      const { id } = await patiently((client) => client.createExecution(request));
      history.push({ what: 'accepted', key: request.requestId || randomUUID(), body, id });
      return id;
    };
    const id = await create();
    if (!isKeyless && chance(0.1)) await create();
    const ended = (error: { reason?: string }) => {
      if (!['EXECUTION_ENDED', 'EXECUTION_RUNNING'].includes(error.reason ?? '')) throw error;
    };
    if (next === 'cancel') {
      await sleep(Math.random() * 80);
      await patiently((client) => client.cancelExecution({ id, reason: 'enough', grace: { seconds: 0, nanos: 0 } })).catch(ended);
    }
    if (next === 'pause') {
      await patiently((client) => client.pauseExecution({ id })).catch(ended);
      await sleep(Math.random() * 80);
      await patiently((client) => client.resumeExecution({ id })).catch(ended);
    }
    return id;
  }

  for (let round = first; round < last; round += 1)
    it(`loses and doubles nothing, ${TIMES} times at each of ${places.length} places (round ${round + 1} of ${rounds})`, async () => {
      await killAtEach();
      if (!isLong) return;
      mkdirSync(dirname(PROGRESS), { recursive: true });
      writeFileSync(PROGRESS, `${round + 1}\n`);
    });

  async function killAtEach(): Promise<void> {
    expect(places.length).to.be.greaterThan(25);
    expect(new Set(places).size, 'names of places').to.equal(places.length);
    isOver = false;
    const before = history.length;
    while (peers.length < PEERS) await addPeer();
    const all = Array.from({ length: TIMES }, (_, time) => places.map((place) => [place, RARE.some((rare) => place.startsWith(rare)) ? 1 : 1 + time] as const)); // biome-ignore format: a row
    const plans = all.flat();
    const open = new Set<string>();
    let n = 0;
    const load = async () => {
      while (!isOver) {
        n += 1;
        if (open.size >= OPEN || live.size === 0) await sleep(20);
        else open.add(await accept(n));
      }
    };
    const look = async (ids: readonly string[]) => {
      for (const id of ids) {
        const found = await patiently((client) => client.getExecution({ id }), 'ours');
        const output = found.output === undefined ? {} : { output: JSON.stringify(found.output) };
        history.push({ what: 'seen', id, state: stateOf(found), version: found.version, ...output });
        if (found.endTime) open.delete(id);
      }
    };
    const watch = async () => {
      while (!isOver) {
        await look([...open]);
        await sleep(200);
      }
    };
    const wear = async () => {
      for (let rest = 0; !isOver; rest = (rest + 1) % 20) {
        await sleep(100);
        if (rest > 0) continue;
        await peers.shift()?.vanish();
        await addPeer();
      }
    };
    const kill = async () => {
      for (let plan = plans.shift(); plan; plan = plans.shift()) await doom(...plan);
    };
    const background = Promise.all([load(), load(), load(), watch(), wear()]);
    await Promise.race([Promise.all(Array.from({ length: AT_ONCE }, kill)), background]);
    isOver = true;
    await background;

    const { child } = launch({});
    const client = clientAt(world.grpcAddress);
    await until('everything to end', async () => {
      await look([...open]);
      return open.size === 0;
    }, 120_000); // biome-ignore format: a probe
    await until('everything to be told', async () => !(await persistently(() => world.db('executions')('outbox').first())), 60_000);
    await events.flush();
    child.kill('SIGTERM');

    const accepted = [...new Set(history.slice(before).flatMap((one) => (one.what === 'accepted' ? one.id : [])))];
    await look(accepted);
    for (const id of accepted.filter((_, index) => index % Math.ceil(accepted.length / 50) === 0)) {
      const log: Extract<Happening, { what: 'log' }> = { what: 'log', id, entries: [], ends: [], isWhole: false };
      for await (const { entry, attemptEnd, end } of client.tailExecutionLogs({ id, cursor: '', follow: true })) {
        if (entry) log.entries.push(entry);
        if (attemptEnd) log.ends.push(attemptEnd);
        log.isWhole ||= end !== undefined;
      }
      history.push(log);
    }
    const { violations, unfinished } = await check(history, world.config, schemaOf(world.config, 'executions'));
    expect({ violations, unfinished }).to.deep.equal({ violations: [], unfinished: [] });
    for (const type of ['created', 'ended']) {
      const told = new Set(history.flatMap((one) => (one.what === 'told' && one.type === type ? one.id : [])));
      expect(
        accepted.filter((id) => !told.has(id)),
        `accepted, and not told as ${type}`,
      ).to.deep.equal([]);
    }
    // What the reconciler had to put right was wrong before, though nobody sees it any more.
    const repairs = [world.logged(), ...outputs.map((read) => read())].flatMap((text) => text.match(/.*put right.*/g) ?? []);
    expect(repairs).to.deep.equal([]);
    const count = (state: string) =>
      new Set(history.slice(before).flatMap((one) => (one.what === 'seen' && one.state === state ? one.id : []))).size;
    const states = ['SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT'].map((state) => `${count(state)} ${state}`);
    console.log(`      ${TIMES * places.length} kills; of ${accepted.length} executions ended ${states.join(', ')}`);
  }
});
