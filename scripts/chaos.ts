// `make chaos` and `make chaos-long`: kills, stops, cuts, wiped stores and full disks by a seed, on a stack of its own, while executions are
// accepted and run; after each round the checker judges. The history stands in build/chaos/<seed>.ndjson. SEED= chooses the plan; a long run
// goes on where its history ends, or FROM=<round>; ROUNDS= of this many. With --power the
// disk of database and broker loses its power instead, with everything that had not reached it; with --fill it is full for some seconds, and
// the database is killed meanwhile. Ends with the line `N lost, N doubled, N gaps`.
import { spawnSync } from 'node:child_process';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { readChoices } from '../deploy/local/environment.ts';
import { REPOSITORY } from '../deploy/local/layout.ts';
import { carryOut, cutPower, fillDisk } from '../tests/chaos/harm.ts';
import { type Amounts, PARTS, planOf } from '../tests/chaos/plan.ts';
import { openRecord, type RecordFile, readRecord, report, type Verdict } from '../tests/chaos/record.ts';
import { type Rig, startRig } from '../tests/chaos/rig.ts';
import { runRound } from '../tests/chaos/round.ts';

interface Form {
  rounds: number;
  executions: number; // of a round
  amounts: Amounts; // of a round
}

const SHORT: Form = { rounds: 1, executions: 300, amounts: { kills: 24, stops: 4, cuts: 8, wipes: 1, fills: 1 } };
// 1,000 kills, 20 wipes of the broker and 10,000 executions in rounds that are short enough to be repeated.
const LONG: Form = { rounds: 40, executions: 250, amounts: { kills: 25, stops: 4, cuts: 6, wipes: 0, fills: 0 } };
const USUAL_SEED = 20_240_607;
const GUARD = join(REPOSITORY, 'deploy/local/guard.py'); // it ends with this process
const MOUNTS = 'CHAOS_MOUNTS';

// In a mount namespace of its own, where it may mount small disks that vanish with it.
function inNamespace(): number | undefined {
  if (process.getuid?.() !== 0 || process.env[MOUNTS] !== undefined) return undefined;
  const command = ['unshare', '--mount', process.execPath, ...process.argv.slice(1)];
  const { status, error } = spawnSync(readChoices().python, ['-I', '-S', GUARD, String(process.pid), ...command], {
    stdio: 'inherit',
    env: { ...process.env, [MOUNTS]: '1' },
  });
  return error ? undefined : (status ?? 1);
}

const keepLogs = ({ stack }: Rig, seed: number, round: number): void =>
  cpSync(stack.layout.logs, join(REPOSITORY, 'build/chaos', `${seed}-${round}-logs`), { recursive: true });

function chaos(rig: Rig, record: RecordFile, round: number, seed: number, { amounts, executions }: Form): Promise<Verdict> {
  const turns = amounts.wipes + amounts.fills === 0 ? { wipes: 1 - (round % 2), fills: round % 2 } : {}; // one in each round
  const plan = planOf(seed, round, { ...amounts, ...turns, ...(rig.disk ? {} : { fills: 0 }) });
  const count = (what: string) => plan.filter((one) => one.what === what).length;
  const harm = () => carryOut(rig, plan, record);
  return runRound({
    rig,
    record,
    round,
    kills: count('kill') + count('wipe'),
    wipes: count('wipe'),
    faults: plan.length,
    executions,
    harm,
  });
}

function powerCut(rig: Rig, record: RecordFile, round: number): Promise<Verdict> {
  const harm = () => cutPower(rig, { isUnflushed: process.argv.includes('--unflushed') });
  return runRound({ rig, record, round, kills: PARTS.length, wipes: 0, faults: 1, executions: 0, harm });
}

function fullDisk(rig: Rig, record: RecordFile, round: number): Promise<Verdict> {
  const harm = () => fillDisk(rig);
  return runRound({ rig, record, round, kills: 0, wipes: 0, faults: 1, executions: 0, harm });
}

async function main(): Promise<number> {
  const isLong = process.argv.includes('--long');
  const isPower = process.argv.includes('--power');
  const isFill = process.argv.includes('--fill');
  const form = isLong ? LONG : SHORT;
  const seed = Number(process.env.SEED ?? (isLong ? Date.now() : USUAL_SEED));
  const file = join(REPOSITORY, 'build/chaos', `${isPower ? 'power-' : isFill ? 'fill-' : ''}${seed}.ndjson`);
  if (!isLong) rmSync(file, { force: true });
  const known = isLong ? readRecord(file).verdicts.map(({ round }) => round) : [];
  const from = Number(process.env.FROM ?? Math.max(-1, ...known) + 1);
  const last = process.env.ROUNDS ? from + Number(process.env.ROUNDS) : isLong ? form.rounds : from + form.rounds;
  console.log(`SEED=${seed}, from round ${from} on; history: ${file}`);
  if (from >= last) console.log('all its rounds are over');
  const rig = await startRig();
  const ours: Verdict[] = [];
  const end = () => void rig.stop().finally(() => process.exit(1));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, end);
  try {
    if (rig.whyNoDisk) console.log(`without full disks: ${rig.whyNoDisk}`);
    for (let round = from; round < last; round += 1) {
      const record = openRecord(file, seed, round);
      const verdict = await (isPower
        ? powerCut(rig, record, round)
        : isFill
          ? fullDisk(rig, record, round)
          : chaos(rig, record, round, seed, form));
      record.note({ what: 'judged', verdict });
      ours.push(verdict);
      const { executions, kills, lost, doubled, gaps, breaches, seconds } = verdict;
      console.log(
        `round ${round}: ${executions} executions, ${kills} kills in ${seconds.toFixed(0)} s: ${lost} lost, ${doubled} doubled, ${gaps} gaps, ${breaches.length} breaches`,
      );
      for (const breach of breaches.slice(0, 20)) console.log(`  ${breach}`);
      if (breaches.length > 0) keepLogs(rig, seed, round);
    }
  } catch (error) {
    keepLogs(rig, seed, from + ours.length);
    throw error;
  } finally {
    await rig.stop();
  }
  const whole = isLong ? readRecord(file) : { ...readRecord(file), verdicts: ours };
  console.log(`\n${report(whole)}`);
  const bad = whole.verdicts.filter(({ breaches }) => breaches.length > 0);
  for (const { round } of bad) console.log(`again: SEED=${seed} FROM=${round} ROUNDS=1 make chaos${isLong ? '-long' : ''}`);
  const total = (of: (one: Verdict) => number) => whole.verdicts.reduce((sum, one) => sum + of(one), 0);
  console.log(`\n${total(({ lost }) => lost)} lost, ${total(({ doubled }) => doubled)} doubled, ${total(({ gaps }) => gaps)} gaps`);
  return bad.length === 0 ? 0 : 1;
}

process.exit(
  inNamespace() ??
    (await main().catch((error) => {
      console.error(error);
      return 1;
    })),
);
