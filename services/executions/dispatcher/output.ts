// The output stream of a session: hands what jobs did to the intake, and confirms what became durable. Reading stops while too much waits.
import type { OutputItem, SessionResponse } from '#gen/millrace/runner/v1/session.ts';
import { toBytes } from '#platform/id.ts';
import * as metrics from './metrics.ts';
import type { Outgoing } from './outgoing.ts';
import { type Reply, type Report, sizeOf } from './report.ts';
import * as traces from './traces.ts';

interface Deps {
  stream: AsyncIterable<SessionResponse>;
  outgoing: Outgoing;
  tell(told: Told): Promise<Reply>;
  heed(claimId: Buffer, reply: Reply): void;
  fail(error: unknown): void; // something could not be kept: what is not confirmed is to be sent again, on a new stream
}
type Told = Omit<Report, 'server' | 'epoch'>;

const WAITING_BYTES = 16 * 1024 * 1024; // of one server

// Returns at the end of the stream; throws when it breaks.
export async function receiveOutput({ stream, outgoing, tell, heed, fail }: Deps): Promise<void> {
  let waiting = 0;
  let goOn: (() => void) | undefined;

  async function keep(item: OutputItem): Promise<void> {
    const told = toldOf(item);
    const bytes = sizeOf({ ...told, server: NOBODY, epoch: 0 });
    waiting += bytes;
    metrics.outputBytes.inc(bytes);
    try {
      const reply = await traces.within(told.claimId, () => tell(told));
      if (reply.kind === 'KEPT') {
        outgoing.confirm([{ claimId: told.claimId, lines: reply.lines, started: item.started !== undefined, result: reply.isOver }]);
      }
      heed(told.claimId, reply);
    } finally {
      waiting -= bytes;
      metrics.outputBytes.dec(bytes);
      if (waiting < WAITING_BYTES) goOn?.();
    }
  }

  for await (const { output } of stream) {
    for (const item of output?.items ?? []) keep(item).catch(fail);
    if (waiting >= WAITING_BYTES) {
      await new Promise<void>((resolve) => {
        goOn = resolve;
      });
    }
  }
}

const NOBODY = Buffer.alloc(0);

const toldOf = ({ executionId, claimId, started, lines, progress, result }: OutputItem): Told => ({
  execution: toBytes('execution', executionId, 'execution_id'),
  claimId,
  started,
  lines: lines.map((line) => (Number.isNaN(line.time?.getTime()) ? { ...line, time: undefined } : line)),
  progress,
  result,
});
