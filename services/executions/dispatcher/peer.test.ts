// An automation server whose jobs do as a test says, at the edge of the dispatcher: it speaks the session as the contract has it, without running
// anything. For what the real one cannot be made to do at a chosen moment, and for thousands of jobs.
import { createHash } from 'node:crypto';
import { Server, ServerCredentials, type ServerDuplexStream, status } from '@grpc/grpc-js';
import { type Job, Line, type Result, Result_Outcome } from '#gen/millrace/runner/v1/job.ts';
import { RunnerServiceService } from '#gen/millrace/runner/v1/runner_service.ts';
import { OutputItem, SessionOpen_Channel, type SessionRequest, SessionResponse } from '#gen/millrace/runner/v1/session.ts';
import type { Db } from '#platform/db.ts';
import { fromBytes, newBytes } from '#platform/id.ts';

type Stream = ServerDuplexStream<SessionRequest, SessionResponse>;
export interface PeerJob {
  job: Job;
  isDropped: boolean;
  start(): void;
  say(...texts: string[]): void;
  end(result?: Partial<Result>): void;
  resend(): void; // everything that was ever said, confirmed or not
}
export interface Peer {
  id: Buffer;
  jobs: PeerJob[]; // in the order of their coming
  cancelled: Buffer[];
  dropped: Buffer[];
  epochs: number[]; // of the control streams that were opened
  held(): number;
  hangUp(): void; // ends the streams, keeps the jobs
  vanish(): Promise<void>; // as if it was killed
  register(db: Db): Promise<void>;
}
interface Options {
  slots?: number;
  labels?: Record<string, string>;
  act?: (job: PeerJob) => void; // what a job does when it has come; by default it starts and succeeds
  refuse?: (job: Job) => boolean;
  ignores?: (job: Job) => boolean; // as if the message had never come
}

const succeed = (job: PeerJob): void => {
  job.start();
  job.end();
};

export async function startPeer({
  slots = 8,
  labels = {},
  act = succeed,
  refuse = () => false,
  ignores = () => false,
}: Options = {}): Promise<Peer> {
  const id = newBytes();
  const held = new Map<
    string,
    PeerJob & { confirm(lines: number, started: boolean): void; running: boolean; ended: boolean; tell(all: boolean): void; lines: number }
  >();
  const streams = new Map<number, Stream>();
  const peer: Pick<Peer, 'jobs' | 'cancelled' | 'dropped' | 'epochs'> = { jobs: [], cancelled: [], dropped: [], epochs: [] };
  let epoch = -1;
  let granted = 0;
  const running = () => [...held.values()].filter((one) => one.running).length;
  const control = (message: Partial<SessionResponse>) =>
    streams.get(SessionOpen_Channel.CONTROL)?.write(SessionResponse.fromPartial(message as object));

  function grant(): void {
    const more = slots - running() - granted;
    if (more <= 0 || !streams.has(SessionOpen_Channel.CONTROL)) return;
    granted += more;
    control({ credit: { add: more } });
  }

  function take(job: Job): void {
    granted -= 1;
    if (ignores(job)) return;
    if (refuse(job)) {
      control({ refused: { items: [{ claimId: job.claimId, reason: 'NO_SLOT' }] } });
      grant();
      return;
    }
    const key = job.claimId.toString('hex');
    const texts: string[] = [];
    let confirmed = 0;
    let isStarted = false;
    let isStartConfirmed = false;
    let result: Result | undefined;
    const tell = (all: boolean, from = all ? 0 : confirmed) => {
      if (one.isDropped) return;
      const lines = texts.slice(from).map((text, index) => Line.fromPartial({ seq: from + index, text, stream: 1, time: new Date() }));
      const started =
        isStarted && (all || !isStartConfirmed) ? { time: new Date(), sandboxTier: 2, limits: [], isolation: 1 as const } : undefined;
      const item = OutputItem.fromPartial({ executionId: job.executionId, claimId: job.claimId, lines } as object);
      Object.assign(item, { started, result });
      streams.get(SessionOpen_Channel.OUTPUT)?.write(SessionResponse.fromPartial({ output: { items: [item] } } as object));
    };
    const one = {
      job,
      isDropped: false,
      running: true,
      ended: false,
      get lines() {
        return confirmed;
      },
      tell,
      confirm(lines: number, started: boolean) {
        confirmed = Math.max(confirmed, lines);
        isStartConfirmed ||= started;
      },
      start() {
        isStarted = true;
        tell(false);
      },
      say(...more: string[]) {
        const from = texts.length;
        texts.push(...more);
        tell(false, from);
      },
      end(given: Partial<Result> = {}) {
        const logSha256 = createHash('sha256')
          .update(texts.map((text) => `${text}\n`).join(''))
          .digest('hex');
        result = { ...OK, time: new Date(), logCount: texts.length, logSha256, ...given };
        one.ended = true;
        one.running = false;
        tell(false, texts.length);
        grant();
      },
      resend: () => tell(true),
    };
    held.set(key, one);
    peer.jobs.push(one);
    act(one);
  }

  function obey(message: SessionRequest): void {
    for (const job of message.start?.jobs ?? []) take(job);
    peer.cancelled.push(...(message.cancel?.claimIds ?? []));
    for (const claim of message.drop?.claimIds ?? []) {
      peer.dropped.push(claim);
      const one = held.get(claim.toString('hex'));
      if (one) one.isDropped = true;
      held.delete(claim.toString('hex'));
    }
    for (const item of message.confirm?.items ?? []) {
      held.get(item.claimId.toString('hex'))?.confirm(item.lines, item.started);
      if (item.result) held.delete(item.claimId.toString('hex'));
    }
    if (message.ping) control({ pong: message.ping });
    if (message.drop || message.confirm) grant();
  }

  function serve(stream: Stream): void {
    stream.on('error', () => undefined);
    stream.on('end', () => stream.end());
    stream.once('data', ({ open }: SessionRequest) => {
      if (!open || open.epoch < epoch) return void stream.emit('error', { code: status.ABORTED, details: 'an older epoch' });
      if (open.epoch > epoch) for (const old of streams.values()) old.end();
      epoch = open.epoch;
      streams.set(open.channel, stream);
      stream.on('close', () => streams.get(open.channel) === stream && streams.delete(open.channel));
      const opened = { serverId: fromBytes('server', id), credits: 0, held: [] as object[], draining: false };
      if (open.channel === SessionOpen_Channel.CONTROL) {
        peer.epochs.push(open.epoch);
        granted = Math.max(0, slots - running());
        opened.credits = granted;
        opened.held = [...held.values()].map(({ job, lines }) => ({
          executionId: job.executionId,
          claimId: job.claimId,
          confirmedLines: lines,
        }));
      }
      stream.write(SessionResponse.fromPartial({ opened } as object));
      stream.on('data', obey);
      if (open.channel === SessionOpen_Channel.OUTPUT) for (const one of held.values()) one.tell(false);
    });
  }

  const server = new Server();
  const unserved = (_: unknown, answer: (error: object) => void) => answer({ code: status.UNIMPLEMENTED });
  server.addService(RunnerServiceService, {
    session: serve,
    run: (call: { end(): void }) => call.end(),
    cancel: unserved,
    validateSource: unserved,
    describeRunner: unserved,
  } as never);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound))),
  );
  return {
    ...peer,
    id,
    held: () => held.size,
    hangUp() {
      for (const stream of streams.values()) stream.end();
    },
    async vanish() {
      server.forceShutdown();
    },
    async register(db) {
      const lease = db.raw('NOW(6) + INTERVAL 3 SECOND');
      const known = {
        endpoint: `127.0.0.1:${port}`,
        labels: JSON.stringify(labels),
        slots,
        tier: 2,
        minimum_tier: 1,
        protocol: 1,
        draining: false,
        state: 'LIVE',
      };
      const now = db.raw('NOW(6)');
      await db('servers').insert({ id, ...known, register_time: now, seen_time: now, owner_epoch: 0, lease_until: lease }).onConflict('id').ignore(); // biome-ignore format: a row
    },
  };
}

const OK: Result = {
  outcome: Result_Outcome.SUCCEEDED,
  outputJson: '1',
  errorType: '',
  errorMessage: '',
  traceback: '',
  time: undefined,
  cpuSeconds: 0,
  peakMemoryKib: 0,
  logCount: 0,
  logSha256: '',
  logBytes: 0,
  droppedBytes: 0,
};
