// Partitions of the history tables by week of the UUIDv7 in their key, so that retention drops a partition instead of deleting rows.
const WEEK = 7 * 24 * 3_600_000;
const AHEAD = 8;

const weekOf = (time: Date): number => Math.floor((time.getTime() - 4 * 24 * 3_600_000) / WEEK); // weeks start on Monday

// The first possible UUIDv7 of a week, as an SQL literal.
const bound = (week: number): string => `x'${(week * WEEK + 4 * 24 * 3_600_000).toString(16).padStart(12, '0')}${'0'.repeat(20)}'`;
const nameOf = (week: number): string => `w${new Date(week * WEEK + 4 * 24 * 3_600_000).toISOString().slice(0, 10).replaceAll('-', '')}`;

// A partition for everything older, one for each week from the present to eight ahead, and one for what is later still.
export function byWeek(column: string, now: Date): string {
  const weeks = Array.from({ length: AHEAD + 1 }, (_, index) => weekOf(now) + index);
  const parts = [
    `PARTITION older VALUES LESS THAN (${bound(weekOf(now))})`,
    ...weeks.map(partition),
    'PARTITION later VALUES LESS THAN (MAXVALUE)',
  ];
  return `PARTITION BY RANGE COLUMNS (${column}) (${parts.join(', ')})`;
}

const partition = (week: number): string => `PARTITION ${nameOf(week)} VALUES LESS THAN (${bound(week + 1)})`;

// The statement that adds the weeks that are missing, given the names of the table's partitions; undefined when none is.
export function addWeeks(table: string, existing: readonly string[], now: Date): string | undefined {
  const missing = Array.from({ length: AHEAD + 1 }, (_, index) => weekOf(now) + index).filter((week) => !existing.includes(nameOf(week)));
  if (missing.length === 0) return undefined;
  return `ALTER TABLE ${table} REORGANIZE PARTITION later INTO (${missing.map(partition).join(', ')}, PARTITION later VALUES LESS THAN (MAXVALUE))`;
}

// Those of a table's partitions that only hold what was made before a time, the oldest first. What is older than all weeks goes with the first.
export function weeksBefore(existing: readonly string[], before: Date): string[] {
  const weeks = existing.filter((name) => /^w\d{8}$/.test(name)).sort();
  const past = weeks.filter((name) => startOf(name) + WEEK <= before.getTime());
  return past.length > 0 && past[0] === weeks[0] && existing.includes('older') ? ['older', ...past] : past;
}

const startOf = (name: string): number => Date.parse(`${name.slice(1, 5)}-${name.slice(5, 7)}-${name.slice(7)}`);

// The statement that drops those partitions of a table that it has; undefined when it has none of them.
export function dropWeeks(table: string, existing: readonly string[], dropped: readonly string[]): string | undefined {
  const names = dropped.filter((name) => existing.includes(name));
  return names.length > 0 ? `ALTER TABLE ${table} DROP PARTITION ${names.join(', ')}` : undefined;
}

export const weeksEarlier = (now: Date, weeks: number): Date => new Date(now.getTime() - weeks * WEEK);
