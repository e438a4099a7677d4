// The transactional outbox: events are written with what they tell of, and published after the commit.
// Source: Richardson, "Pattern: Transactional outbox". The relay takes what is present, never what is newer than a mark.
import { headers, type MsgHdrs } from '@nats-io/transport-node';
import { context, propagation } from '@opentelemetry/api';
import mysql from 'mysql2';
import { type Bus, eventsStream } from './bus.ts';
import type { Db, Pool, ResultSetHeader, RowDataPacket, Tx } from './db.ts';
import { failpoint } from './failpoint.ts';
import { fromBytes, newBytes } from './id.ts';
import type { Logger } from './log.ts';
import { counter, gauge } from './metrics.ts';
import { pause, sleeper } from './pause.ts';

export interface Event {
  type: string; // CloudEvents type, such as task.created
  verb: string; // past participle for the NATS subject, such as created
  subject: string; // the aggregate's id
  workspace: string;
  version: number; // of the aggregate: consumers ignore older ones
  schema: string; // the message's full name
  data: Uint8Array;
}
export interface Relay {
  kick(): void; // something was committed
  stop(): Promise<void>;
}

const PAGE = 200;
const IDLE_MS = 1000;
const GATHER_MS = 5; // events that come together are published together
const BUSY_GATHER_MS = 50; // while they come all the time
const published = counter('millrace_outbox_published_total', 'Events published', ['module']);
const age = gauge('millrace_outbox_age_seconds', 'Age of the oldest event that is not published', ['module']);

interface Row extends RowDataPacket {
  id: Buffer;
  subject: string;
  verb: string;
  data: Buffer;
  create_time: Date;
}
const TAKE = `BEGIN; SELECT *, TIMESTAMPDIFF(MICROSECOND, create_time, NOW(6)) / 1e6 AS age FROM outbox ORDER BY id LIMIT ${PAGE} FOR UPDATE SKIP LOCKED`;

const relays = new Map<string, () => void>(); // by schema

export const traceparent = (): string | null => {
  const carrier: { traceparent?: string } = {};
  propagation.inject(context.active(), carrier);
  return carrier.traceparent ?? null;
};

const rowOf = (event: Event) => ({
  id: newBytes(),
  type: event.type,
  verb: event.verb,
  subject: event.subject,
  workspace: event.workspace,
  version: event.version,
  data_schema: event.schema,
  data: Buffer.from(event.data),
  traceparent: traceparent(),
});

// Writes events in the transaction that makes them true.
export async function emit(tx: Tx, ...events: Event[]): Promise<void> {
  if (events.length === 0) return;
  await tx('outbox').insert(events.map((event) => ({ ...rowOf(event), create_time: tx.raw('NOW(6)') })));
  const kick = relays.get(schemaName(tx));
  if (kick) tx.executionPromise.then(kick, () => undefined);
}

// The same as a statement for hot paths, which call kick() after their commit.
export function emitSql(...events: Event[]): string {
  const rows = events.map((event) => Object.entries({ ...rowOf(event), create_time: mysql.raw('NOW(6)') }));
  const columns = rows[0]?.map(([column]) => column).join(', ');
  return mysql.format(`INSERT INTO outbox (${columns}) VALUES ?`, [rows.map((row) => row.map(([, value]) => value))]);
}

const schemaName = (db: Db | Tx): string => (db.client.config.connection as { database: string }).database;

export function openRelay({ db, pool, bus, area, log }: { db: Db; pool: Pool; bus: Bus; area: string; log: Logger }): Relay {
  const stopped = new AbortController();
  let rest = sleeper();
  const kick = () => rest.wake();
  relays.set(schemaName(db), kick);

  // One page: locked, published, acknowledged, deleted. Other relays skip what is locked here.
  async function page(): Promise<number> {
    const { js } = await bus.jetstream();
    const connection = await pool.getConnection();
    try {
      const [[, rows]] = (await connection.query(TAKE)) as unknown as [[ResultSetHeader, Row[]]];
      if (rows.length > 0) failpoint('relay.before_publish');
      age.set({ module: area }, Number(rows[0]?.age ?? 0));
      await Promise.all(
        rows.map((row) =>
          js.publish(`${bus.prefix}.events.${area}.${row.subject}.${row.verb}`, row.data, {
            msgID: row.id.toString('hex'),
            expect: { streamName: eventsStream(bus.prefix) },
            headers: headersOf(row, area),
            retries: 2,
          }),
        ),
      );
      if (rows.length > 0) failpoint('relay.after_publish');
      await connection.query([...rows.map(({ id }) => connection.format('DELETE FROM outbox WHERE id = ?', [id])), 'COMMIT'].join(';'));
      published.inc({ module: area }, rows.length);
      return rows.length;
    } catch (error) {
      connection.destroy(); // and with it the transaction
      throw error;
    } finally {
      connection.release();
    }
  }

  async function run(): Promise<void> {
    await bus.ensureEvents().catch(() => undefined); // else the first event would wait for it
    while (!stopped.signal.aborted) {
      rest = sleeper();
      try {
        if ((await page()) === PAGE) continue;
        const since = performance.now();
        await rest.sleep(IDLE_MS);
        const isBusy = performance.now() - since < BUSY_GATHER_MS;
        await pause(isBusy ? BUSY_GATHER_MS : GATHER_MS, stopped.signal);
      } catch (error) {
        if (stopped.signal.aborted) return;
        log.warn({ error }, 'events wait: they cannot be published now');
        await bus.ensureEvents().catch(() => undefined); // a wiped broker has no stream
        await pause(500, stopped.signal);
      }
    }
  }
  const running = run();
  return {
    kick,
    async stop() {
      stopped.abort();
      rest.wake();
      relays.delete(schemaName(db));
      await Promise.race([running, pause(3000)]);
    },
  };
}

// CloudEvents 1.0, NATS protocol binding, binary mode.
function headersOf(row: Row, area: string): MsgHdrs {
  const all = headers();
  const set = (name: string, value: unknown) => all.set(name, String(value));
  set('ce-specversion', '1.0');
  set('ce-id', fromBytes('event', row.id));
  set('ce-type', row.type);
  set('ce-source', `millrace/${area}`);
  set('ce-subject', row.subject);
  set('ce-time', row.create_time.toISOString());
  set('ce-dataschema', row.data_schema);
  set('ce-workspace', row.workspace);
  set('ce-version', row.version);
  set('content-type', 'application/protobuf');
  if (row.traceparent) set('traceparent', row.traceparent);
  return all;
}
