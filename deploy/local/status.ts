// `make status`: a line for each part.
import type { PartReport, Report } from './control.ts';

const HEAD = ['PART', 'STATE', 'PID', 'ADDRESS', 'RESTARTS', 'IN STATE', 'MEMORY'];

export function span(seconds: number): string {
  const units: [number, string][] = [
    [86_400, 'd'],
    [3600, 'h'],
    [60, 'min'],
  ];
  const [size, name] = units.find(([one]) => seconds >= one) ?? [1, 's'];
  return `${Math.floor(seconds / size)} ${name}`;
}

const row = (part: PartReport): string[] => [
  part.name,
  part.state,
  String(part.pid ?? '-'),
  part.address ?? '-',
  String(part.restarts),
  part.pid === undefined ? '-' : span(part.upSeconds),
  part.pid === undefined ? '-' : `${part.memoryMib} MiB`,
];

export function table({ pid, isReady, parts }: Report): string {
  const rows = [HEAD, ...parts.map(row)];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((cells) => cells[column]?.length ?? 0)));
  const lines = rows.map((cells) =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  ); // prettier-ignore
  const complaints = parts.filter(({ complaint }) => complaint).map(({ name, complaint }) => `${name}: ${complaint}`);
  return [...lines, ...complaints, `launcher: pid ${pid}, ${isReady ? 'up' : 'starting'}`].join('\n');
}
