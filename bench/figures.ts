// Figures of a measurement: percentiles, rates, and how they are printed.
export interface Figure {
  name: string;
  unit: string;
  value: number;
  note?: string;
}

export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export const latency = (name: string, values: readonly number[]): Figure[] => [
  { name: `${name} p50`, unit: 'ms', value: percentile(values, 0.5) },
  { name: `${name} p99`, unit: 'ms', value: percentile(values, 0.99) },
];

export const median = (values: readonly number[]): number => percentile(values, 0.5);

// Runs `count` pieces of work with `width` at once; answers how many were done a second.
export async function rate(count: number, width: number, work: (index: number) => Promise<unknown>): Promise<number> {
  let next = 0;
  const start = performance.now();
  const worker = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: width }, worker));
  return (count / (performance.now() - start)) * 1000;
}

export function table(figures: readonly Figure[]): string {
  const width = Math.max(...figures.map((one) => one.name.length));
  const format = (value: number) => (value >= 100 ? value.toFixed(0) : value.toFixed(2));
  return figures
    .map(({ name, value, unit, note }) => `${name.padEnd(width)}  ${format(value).padStart(9)} ${unit}${note ? `   ${note}` : ''}`)
    .join('\n');
}
