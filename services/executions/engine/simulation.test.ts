import { expect } from 'chai';
import { longer } from '../../../tests/long.ts';
import { breachOf, emptyTables, type Flaw, isFinal, openModel } from './simulation-model.test.ts';

// What may be left out besides the model's own parts.
type Mutant = Flaw | 'noSweep' | 'ackAfterClaim' | 'localClock';

interface Job {
  id: number;
  claim: number;
  attempt: number;
  lines: number;
  isOver: boolean;
  fails: boolean;
}
interface Server {
  id: number;
  isAlive: boolean;
  isGivenUp: boolean;
  owner: number; // a dispatcher, -1: nobody
  epoch: number;
  leaseUntil: number; // by the database's clock
  jobs: Map<number, Job>; // by claim
}
interface Dispatcher {
  isAlive: boolean;
  stalledUntil: number;
  life: number; // what an earlier one had in memory is gone
  turn: boolean; // its ticket is acked, and it is about to claim
  skew: number; // of its own clock
}
type Message = { at: number; deliver(): void; canBeLost: boolean };

const SLOTS = 3;
const LEASE_MS = 60;
const STEPS = 160;

// Source: Tommy Ettinger's mulberry32, a generator with 32 bits of state.
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// What happened in all schedules: a simulation in which little happens proves little.
const happened = new Map<string, number>();
const count = (what: string) => void happened.set(what, (happened.get(what) ?? 0) + 1);

// One schedule: clients, two dispatchers, automation servers, a broker and a clock, in the order that the seed says. Every fourth one is calm:
// nothing is lost and nobody dies, and then tickets alone must do, without the sweep. Answers what broke.
function simulate(seed: number, mutant?: Mutant): string | undefined {
  const random = randomOf(seed);
  const chance = (share: number) => random() < share;
  const pick = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)] as T;
  const isCalm = seed % 4 === 0;
  const clock = { now: 0 };
  const tables = emptyTables(1 + Math.floor(random() * 2));
  const model = openModel(tables, clock, new Set(mutant ? [mutant as Flaw] : []));
  const dispatchers: Dispatcher[] = [0, 1].map(() => ({ isAlive: true, stalledUntil: 0, life: 0, turn: false, skew: Math.floor((random() - 0.5) * 400) })); // biome-ignore format: a row
  const servers: Server[] = [];
  const answers = new Map<string, number>(); // by idempotency key
  const accepted = new Set<number>();
  let messages: Message[] = [];
  let ticket: 'NONE' | 'WAITING' | 'IN_FLIGHT' = 'NONE';
  let faults = !isCalm;
  let breach: string | undefined;
  let ids = 0;

  const addServer = () => servers.push({ id: servers.length, isAlive: true, isGivenUp: false, owner: -1, epoch: 0, leaseUntil: clock.now + LEASE_MS, jobs: new Map() }); // biome-ignore format: a row
  const acts = (one: Dispatcher) => one.isAlive && one.stalledUntil <= clock.now;
  const fail = (what: string) => {
    breach ??= what;
  };
  function send(deliver: () => void, canBeLost = true): void {
    if (canBeLost && faults && chance(0.05)) return;
    const at = clock.now + Math.floor(random() * (faults ? 60 : 5));
    messages.push({ at, deliver, canBeLost });
    if (faults && chance(0.05)) messages.push({ at: at + Math.floor(random() * 80), deliver, canBeLost });
  }
  function ring(): void {
    if (faults && chance(0.2)) return; // the broker loses it
    if (ticket === 'NONE') ticket = 'WAITING';
  }
  const running = (server: number) => [...tables.running.values()].filter((row) => row.server === server);
  const free = (server: Server) => SLOTS - running(server.id).length;
  const owned = (index: number) => servers.filter((one) => one.owner === index && one.isAlive && !one.isGivenUp && free(one) > 0);

  function accept(): void {
    ids += 1;
    const [id, name, key, inMs] = [ids, chance(0.2) && ids > 1 ? `k${1 + Math.floor(random() * (ids - 1))}` : `k${ids}`, chance(0.6) ? 'k' : null, chance(0.2) ? 30 : 0]; // biome-ignore format: a row
    const ask = () => {
      const made = model.accept(id + (answers.has(name) || tables.keys.has(name) ? 0.5 : 0), name, key, inMs);
      ring();
      if (faults && chance(0.2)) return ask(); // the answer was lost
      if ((answers.get(name) ?? made) !== made) fail(`I5: ${name} was answered with ${answers.get(name)} and with ${made}`);
      answers.set(name, made);
      accepted.add(made);
    };
    ask();
  }

  function takeTicket(index: number): void {
    const one = dispatchers[index] as Dispatcher;
    if (ticket !== 'WAITING' || !acts(one) || one.turn || owned(index).length === 0) return;
    ticket = mutant === 'ackAfterClaim' ? 'IN_FLIGHT' : 'NONE';
    one.turn = true;
  }

  // Reads what is ready, and commits; what is accepted between the two is another turn's.
  function claim(index: number): void {
    const one = dispatchers[index] as Dispatcher;
    if (!acts(one) || !one.turn) return;
    one.turn = false;
    for (const server of owned(index)) {
      for (let credits = free(server); credits > 0; credits -= 1) {
        const row = model.claim(server.id);
        if (!row) break;
        const job = { id: row.id, claim: row.claim, attempt: row.attempt, lines: 0, isOver: false, fails: chance(0.3) };
        send(() => begin(server, job));
      }
    }
    if (tables.ready.length > 0) ring();
    if (mutant !== 'ackAfterClaim') return;
    if (chance(0.5)) accept(); // while its ticket is in flight
    ticket = 'NONE';
  }

  function begin(server: Server, job: Job): void {
    if (!server.isAlive || server.jobs.has(job.claim) || server.isGivenUp) return;
    const row = tables.running.get(job.id);
    if (faults && chance(0.1)) return void send(() => row && back(() => model.refuse(job.id, job.claim)));
    server.jobs.set(job.claim, { ...job });
  }
  function back(move: () => void): void {
    move();
    ring();
  }

  function work(server: Server): void {
    const job = pick([...server.jobs.values()]);
    if (!server.isAlive || !job) return;
    if (!job.isOver && chance(0.5)) job.lines += 1;
    else job.isOver = true;
    report(server, job);
  }

  // Until it is confirmed or dropped, it is told again.
  function report(server: Server, job: Job): void {
    const { owner, epoch } = server;
    const told = { attempt: job.attempt, lines: job.lines, outcome: job.isOver ? outcomeOf(job) : undefined };
    const one = dispatchers[owner];
    if (!one) return;
    const { life } = one;
    send(() => {
      if (!one.isAlive || one.life !== life) return;
      if (one.stalledUntil > clock.now) return void messages.push({ at: one.stalledUntil, deliver: () => keep(server, job, epoch, told), canBeLost: false }); // biome-ignore format: a row
      keep(server, job, epoch, told);
    });
  }
  const outcomeOf = ({ fails }: Job) => fails ? ({ kind: 'FAILED', type: 'E', message: '', traceback: '' } as const) : ({ kind: 'SUCCEEDED', output: '' } as const); // biome-ignore format: a row

  function keep(
    server: Server,
    job: Job,
    epoch: number,
    told: { attempt: number; lines: number; outcome: ReturnType<typeof outcomeOf> | undefined },
  ): void {
    const isOwner =
      mutant === 'noFence' || mutant === 'attemptFence' || mutant === 'plainRead' || (server.epoch === epoch && !server.isGivenUp);
    if (!isOwner) count('told to a former owner');
    if (!isOwner) return;
    const isPresent = tables.running.get(job.id)?.claim === job.claim;
    const mayWrite = model.mayWrite(job.id, job.claim, told.attempt);
    if (!isPresent) count('told on a former claim');
    if (isPresent && !mayWrite) fail(`I4: what ${job.id} told on its present claim was refused`);
    const write = () => {
      if (mayWrite) model.write(job.id, job.claim, told, random());
      if (!mayWrite || told.outcome) server.jobs.delete(job.claim);
      ring();
    };
    if (mutant === 'plainRead') messages.push({ at: clock.now + Math.floor(random() * 60), deliver: write, canBeLost: false });
    else write();
  }

  // An owner compares what its server has with running; a start under way is neither.
  function look(server: Server): void {
    const one = dispatchers[server.owner];
    if (!one || !acts(one) || !server.isAlive || messages.length > 0) return;
    for (const row of running(server.id)) if (!server.jobs.has(row.claim)) back(() => model.lose(row.id, row.claim, random()));
    for (const [claimId, job] of server.jobs) if (tables.running.get(job.id)?.claim !== claimId) server.jobs.delete(claimId);
    for (const job of server.jobs.values()) report(server, job);
  }

  function own(server: Server, index: number): void {
    const one = dispatchers[index] as Dispatcher;
    if (!acts(one) || server.isGivenUp || (server.owner >= 0 && (dispatchers[server.owner] as Dispatcher).isAlive && !chance(0.1))) return;
    server.owner = index;
    server.epoch += 1;
  }

  // Leases are compared with the database's clock, whoever looks.
  function reap(index: number): void {
    const one = dispatchers[index] as Dispatcher;
    if (!acts(one)) return;
    const now = mutant === 'localClock' ? clock.now + one.skew : clock.now;
    for (const server of servers.filter(({ isGivenUp, leaseUntil }) => !isGivenUp && leaseUntil < now)) {
      if (server.leaseUntil >= clock.now) fail(`server ${server.id} was given up within its lease`);
      server.isGivenUp = true;
      server.epoch += 1;
      server.owner = -1;
      count('server given up');
      for (const row of running(server.id)) back(() => model.lose(row.id, row.claim, random()));
      if (server.isAlive) server.jobs.clear();
      addServer();
    }
    model.overdue(random());
    if (model.due() > 0 || isCalm) ring();
  }
  function renew(): void {
    for (const server of servers) {
      const one = dispatchers[server.owner];
      if (server.isAlive && !server.isGivenUp && one && acts(one)) server.leaseUntil = clock.now + LEASE_MS;
    }
  }

  function hurt(): void {
    const one = pick(dispatchers);
    const server = pick(servers);
    const what = random();
    if (what < 0.3) Object.assign(one, { isAlive: false, turn: false, life: one.life + 1 });
    else if (what < 0.5) one.stalledUntil = clock.now + 100;
    else if (what < 0.7) {
      server.isAlive = false;
      server.jobs.clear();
    } else if (what < 0.85) ticket = 'NONE';
    else messages = messages.filter(({ canBeLost }) => !canBeLost || chance(0.5));
  }

  function control(): void {
    const id = pick([...accepted]);
    if (id === undefined) return;
    const what = random();
    if (what < 0.4) model.cancel(id);
    else if (what < 0.7) model.pause(id);
    else model.resume(id);
    ring();
  }

  function deliver(): void {
    const due = messages.filter(({ at }) => at <= clock.now);
    const one = pick(due);
    if (!one) return;
    messages.splice(messages.indexOf(one), 1);
    one.deliver();
  }

  function step(): void {
    const what = random();
    const index = Math.floor(random() * 2);
    if (what < 0.12) accept();
    else if (what < 0.18) control();
    else if (what < 0.28) takeTicket(index);
    else if (what < 0.4) claim(index);
    else if (what < 0.6) deliver();
    else if (what < 0.78) work(pick(servers));
    else if (what < 0.82) own(pick(servers), index);
    else if (what < 0.86) reap(index);
    else if (what < 0.9) look(pick(servers));
    else if (what < 0.94) sweep();
    else if (what < 0.97) renew();
    else if (faults) hurt();
    if (isCalm) renew();
    clock.now += Math.floor(random() * 8);
  }
  function sweep(): void {
    if (mutant !== 'noSweep' && !isCalm && tables.ready.length > 0) ring();
  }

  function check(): void {
    const found = breachOf(tables);
    if (found) fail(found);
    for (const [name, claims] of tables.lines)
      if (new Set(claims).size > 1) fail(`I3: lines of claims ${[...new Set(claims)]} in attempt ${name}`);
  }

  addServer();
  addServer();
  for (let steps = 0; steps < STEPS && !breach; steps += 1) {
    step();
    check();
  }
  // Then all is well again, and everything that was accepted ends.
  faults = false;
  for (const one of dispatchers) Object.assign(one, { isAlive: true, stalledUntil: 0 });
  const isOpen = () => [...tables.executions.values()].some(({ state }) => !isFinal(state));
  for (let round = 0; round < 600 && !breach && isOpen(); round += 1) {
    clock.now += 10;
    for (const id of accepted) model.resume(id);
    if (!servers.some(({ isAlive, isGivenUp }) => isAlive && !isGivenUp)) addServer();
    for (const server of servers) if (server.owner < 0) own(server, round % 2);
    renew();
    for (const index of [0, 1]) {
      reap(index);
      takeTicket(index);
      claim(index);
    }
    for (let left = messages.length; left > 0; left -= 1) deliver();
    for (const server of servers) if (server.isAlive) work(server);
    if (round % 10 === 9) messages = [];
    for (const server of servers) look(server);
    sweep();
    check();
  }
  for (const { state, lost } of tables.executions.values()) {
    count(state);
    if (lost > 0) count('lost');
  }
  for (const id of accepted) if (!isFinal(tables.executions.get(id)?.state ?? 'QUEUED')) fail(`I1: ${id} did not end`);
  check();
  return breach;
}

describe('the engine, simulated', () => {
  const schedules = longer('simulated schedules of the engine', 10_000, 100_000);
  const only = process.env.SEED;

  it(`keeps its promises in ${only ? `schedule ${only}` : `${schedules} schedules`}`, function () {
    this.timeout(schedules * 20);
    for (let seed = only ? Number(only) : 1; seed <= (only ? Number(only) : schedules); seed += 1) {
      const breach = simulate(seed);
      expect(breach, `SEED=${seed} mocha ${import.meta.filename.replace(/.*\/services/, 'services')}`).to.equal(undefined);
    }
    const cases = ['SUCCEEDED', 'FAILED', 'CANCELLED', 'lost', 'server given up', 'told to a former owner', 'told on a former claim'];
    if (!only) for (const what of cases) expect(happened.get(what) ?? 0, what).to.be.greaterThan(schedules / 50);
  });

  const mutants: readonly Mutant[] = ['noFence', 'plainRead', 'attemptFence', 'forgetsCancelling', 'noSweep', 'ackAfterClaim', 'localClock', 'noDedup', 'slotKept', 'noPromotion']; // biome-ignore format: a list
  for (const mutant of mutants) {
    it(`notices the mutant ${mutant}`, function () {
      this.timeout(120_000);
      const seeds = Array.from({ length: 2000 }, (_, index) => index + 1);
      const seed = seeds.find((one) => simulate(one, mutant) !== undefined);
      expect(seed, 'the seed of a schedule in which it breaks a promise').to.be.a('number');
    });
  }
});
