// `make chaos` and `make chaos-long`: kills, stops, cuts, wiped stores and full disks by a seed, on a stack of its own, while executions are
// accepted and run; after each round the checker judges. The history stands in build/chaos/<seed>.ndjson. SEED= chooses the plan; a long run
// goes on where its history ends, or FROM=<round>; ROUNDS= of this many. Ends with the line `N lost, N doubled, N gaps`.
import { spawnSync } from 'node:child_process';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { readChoices } from '../deploy/local/environment.ts';
import { REPOSITORY } from '../deploy/local/layout.ts';
import { type Amounts, planOf } from '../tests/chaos/plan.ts';
import { openRecord, readRecord, report, type Verdict } from '../tests/chaos/record.ts';
import { type Rig, startRig } from '../tests/chaos/rig.ts';
import { runRound } from '../tests/chaos/round.ts';

interface Form {
  rounds: number;
  executions: number; // of a round
  amounts: Amounts; // of a round
}

const SHORT: Form = { rounds: 1, executions: 300, amounts: { kills: 24, stops: 4, cuts: 8, wipes: 1, fills: 1 } };
const LONG: Form = { rounds: 20, executions: 500, amounts: { kills: 50, stops: 8, cuts: 12, wipes: 1, fills: 1 } };
const USUAL_SEED = 20_240_607;
const GUARD = join(REPOSITORY, 'deploy/local/guard.py'); // it ends with this process
const MOUNTS = 'MILLRACE_CHAOS_MOUNTS';

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

async function main(): Promise<number> {
  const isLong = process.argv.includes('--long');
  const form = isLong ? LONG : SHORT;
  const seed = Number(process.env.SEED ?? (isLong ? Date.now() : USUAL_SEED));
  const file = join(REPOSITORY, 'build/chaos', `${seed}.ndjson`);
  if (!isLong) rmSync(file, { force: true });
  const known = isLong ? readRecord(file).verdicts.map(({ round }) => round) : [];
  const from = Number(process.env.FROM ?? Math.max(-1, ...known) + 1);
  const last = from + Number(process.env.ROUNDS ?? form.rounds - (process.env.FROM === undefined ? from : 0));
  console.log(`SEED=${seed}, from round ${from} on; history: ${file}`);
  if (from >= last) console.log('all its rounds are over');
  const rig = await startRig();
  const ours: Verdict[] = [];
  const end = () => void rig.stop().finally(() => process.exit(1));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, end);
  try {
    if (rig.whyNoDisk) console.log(`without full disks: ${rig.whyNoDisk}`);
    for (let round = from; round < last; round += 1) {
      const amounts = { ...form.amounts, ...(rig.disk ? {} : { fills: 0 }) };
      const record = openRecord(file, seed, round);
      const verdict = await runRound({ rig, record, round, plan: planOf(seed, round, amounts), executions: form.executions });
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
