// One table: each contender's figures with what it promises, and beneath them how the product compares.
import { median } from '../figures.ts';
import { type Contender, MEASURES, type Measured } from './contender.ts';

export interface Row {
  contender: Contender;
  rounds: Measured[];
  skipped?: string; // why it is not here
  failed?: string; // why a round has no figures
}

const NAME = 30;
const CELL = 14;

export function medians(rounds: readonly Measured[]): Measured {
  const entries = MEASURES.flatMap(({ key }) => {
    const values = rounds.flatMap((round) => round[key] ?? []);
    return values.length > 0 ? [[key, median(values)] as const] : [];
  });
  return Object.fromEntries(entries);
}

// `ours`: the rows that the others are compared with.
export function table(rows: readonly Row[], ours: readonly Row[]): string {
  const head = `${''.padEnd(NAME)}${MEASURES.map(({ title }) => title.padStart(CELL)).join('')}`;
  return [head, ...rows.map((row) => block(row, ours))].join('\n\n');
}

function block({ contender, rounds, skipped, failed }: Row, ours: readonly Row[]): string {
  const promise = `  ${contender.durability}\n  ${contender.isolation}`;
  const reason = `${skipped ? `\n  skipped: ${skipped}` : ''}${failed ? `\n  failed${rounds.length > 0 ? ' in a round' : ''}: ${failed}` : ''}`;
  if (rounds.length === 0) return `${contender.name}${reason}\n${promise}`;
  const own = medians(rounds);
  const lost = rounds.reduce((sum, one) => sum + (one.lost ?? 0), 0);
  const losses = lost > 0 ? `\n  ${lost} accepted tasks never ran` : '';
  const cells = (text: (measure: (typeof MEASURES)[number]) => string) => MEASURES.map((one) => text(one).padStart(CELL)).join('');
  const against = ours
    .filter((one) => one.contender !== contender && one.rounds.length > 0)
    .map((one) => {
      const other = medians(one.rounds);
      return `${`  ${one.contender.name}`.padEnd(NAME)}${cells((measure) => ratio(measure, other, own))}`;
    });
  return [`${contender.name.padEnd(NAME)}${cells(({ key }) => figure(own[key]))}`, ...against, promise + losses + reason].join('\n');
}

const figure = (value: number | undefined): string => {
  if (value === undefined) return '-';
  return value >= 100 ? value.toFixed(0) : value.toFixed(2);
};

// How many times better the product is; below 1x the contender is.
function ratio({ key, more }: (typeof MEASURES)[number], product: Measured, contender: Measured): string {
  const [mine, theirs] = [product[key], contender[key]];
  if (key === 'load' || mine === undefined || theirs === undefined || mine <= 0 || theirs <= 0) return '';
  const times = more ? mine / theirs : theirs / mine;
  return `${times >= 10 ? times.toFixed(0) : times.toFixed(1)}x`;
}
