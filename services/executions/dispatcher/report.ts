// What is told of one claimed execution, by its server or by the dispatcher about it, and what came of telling it.
import type { Line, ProgressReport, Result, Started } from '#gen/millrace/runner/v1/job.ts';

export interface Report {
  server: Buffer;
  epoch: number; // in which the teller owns the server
  execution: Buffer;
  claimId: Buffer;
  started?: Started | undefined;
  lines?: readonly Line[] | undefined;
  progress?: ProgressReport | undefined;
  result?: Result | undefined;
  given?: Given | undefined;
}
// The server did not take it, did not take it yet for what it lacks, or does not have it.
export type Given = 'REFUSED' | 'NOT_YET' | 'LOST';
export type Reply =
  | { kind: 'KEPT'; lines: number; isOver: boolean } // durable: so many lines, and the end
  | { kind: 'STALE' } // the claim is not, or no longer, the present one
  | { kind: 'NOT_OWNER' }; // the server has another owner now: nothing was written

const LINE_BYTES = 64;

export const sizeOf = ({ lines = [], result }: Report): number =>
  lines.reduce((sum, { text }) => sum + text.length + LINE_BYTES, 500) + (result ? result.outputJson.length + result.traceback.length : 0);

// What was told of the same claim one after the other, as one.
export function merge(reports: readonly Report[]): Report {
  const [first] = reports;
  if (!first) throw new Error('nothing was told');
  const last = <K extends keyof Report>(key: K) => reports.findLast((one) => one[key] !== undefined)?.[key];
  return {
    ...first,
    started: first.started ?? last('started'),
    lines: reports.flatMap(({ lines = [] }) => lines),
    progress: last('progress'),
    result: reports.find(({ result }) => result)?.result,
    given: reports.find(({ given }) => given)?.given,
  };
}

// The lines that come after those which are durable. Undefined when there is a gap before them.
export function following(lines: readonly Line[], durable: number): readonly Line[] | undefined {
  const news: Line[] = [];
  for (const line of lines) {
    const next = durable + news.length;
    if (line.seq > next) return undefined;
    if (line.seq === next) news.push(line); // an earlier one was sent again, on a new stream
  }
  return news;
}
