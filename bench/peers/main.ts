// `make bench-peers`: the product and its peers on the same work in one run, one after another. Prints a table and keeps it in bench/results.
// QUICK=1 takes little of everything, REPEAT=3 keeps medians, ONLY=millrace,celery takes those whose names begin so.
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { bullmqIn } from './bullmq.ts';
import { type Contender, FULL, measure, QUICK } from './contender.ts';
import { millrace } from './millrace.ts';
import { pythonPeers } from './python.ts';
import { type Row, table } from './table.ts';

const quick = process.env.QUICK === '1';
const repeat = Number(process.env.REPEAT ?? 1);
const only = (process.env.ONLY ?? '').toLowerCase().split(',').filter(Boolean);

const product = [millrace('FRESH'), millrace('REUSED')];
const all: Contender[] = [...product, ...pythonPeers, bullmqIn(true), bullmqIn(false)];
const chosen = all.filter(({ name }) => only.length === 0 || only.some((begin) => name.toLowerCase().startsWith(begin)));
const rows: Row[] = chosen.map((contender) => ({ contender, rounds: [] }));

const load = (): string => loadavg()[0]?.toFixed(1) ?? '';

// Before anything is measured: compilers and downloads would be heard.
for (const row of rows) {
  await row.contender.install().catch((error: Error) => {
    row.skipped = error.message;
  });
}

async function once(row: Row): Promise<void> {
  const driver = await row.contender.open();
  try {
    row.rounds.push(await measure(driver, quick ? QUICK : FULL, row.contender));
  } finally {
    await driver.close();
  }
}

for (let round = 1; round <= repeat; round += 1) {
  for (const row of rows.filter(({ skipped }) => skipped === undefined)) {
    console.error(`round ${round}: ${row.contender.name} (load ${load()})`);
    await once(row).catch((error: Error) => {
      row.failed = error.message;
      console.error(error);
    });
  }
}

const notes = `Median of ${repeat} round(s)${quick ? ', little of everything: shows that it runs, not how fast' : ''}. ${cpus().length} x ${cpus()[0]?.model}, kernel ${release()}; all parts and the client share them.
The indented rows: how many times better Millrace is there; below 1x the contender is. What each column means: docs/PERFORMANCE.md.`;
const ours = rows.filter(({ contender }) => product.includes(contender));
const text = `Millrace beside its peers\n${notes}\n\n${table(rows, ours)}\n`;
console.log(text);
mkdirSync('bench/results', { recursive: true });
writeFileSync(`bench/results/${quick ? 'quick-peers' : 'peers'}.txt`, text);
