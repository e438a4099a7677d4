// Dead letters of this process' schemas: shown, handed to their consumer again, or set aside.
import { DeadLetter, DeadLetter_Kind, DeadLetter_State } from '#gen/millrace/executions/v1/dead_letter.ts';
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import type { EventLetterServiceService } from '#gen/millrace/executions/v1/event_letter_service.ts';
import { type Consumer, intake, type ReceivedEvent, reasonOf } from './consumer.ts';
import type { Contract } from './contract.ts';
import type { Db } from './db.ts';
import { shown } from './dead-letter-data.ts';
import * as store from './dead-letter-store.ts';
import { type Fault, notFound, reasonsOf } from './errors.ts';
import { faultOf, isDatabaseAway } from './faults.ts';
import type { Handlers } from './handlers.ts';
import { fromBytes, toBytes } from './id.ts';
import { decodePage, encodePage } from './paging.ts';

export interface Letters {
  know(area: string, consumer: Consumer): void; // events that it gives up can be handed to it
  handlers: Handlers<EventLetterServiceService>;
}
interface Named {
  area: string;
  workspaceId: string;
  consumer: string;
  eventId: string;
}
type Whole = store.LetterRow & { data: Buffer };

const faults = reasonsOf<keyof typeof ErrorReason>('executions');

export function openLetters({ contract, dbOf }: { contract: Contract; dbOf(area: string): Db | undefined }): Letters {
  const known = new Map<string, Consumer>();

  async function find(named: Named): Promise<{ db: Db; row: Whole }> {
    const db = dbOf(named.area);
    const row = await (db && store.find(db, named.workspaceId, { consumer: named.consumer, event: toBytes('event', named.eventId) }));
    if (!db || !row) throw notFound('dead letter', idOf(named.area, named.consumer, named.eventId));
    return { db, row };
  }

  async function again(area: string, db: Db, row: Whole, settler: string): Promise<void> {
    const consumer = known.get(`${area} ${row.consumer}`);
    if (!consumer) throw faults.failedPrecondition('CONSUMER_GONE', `no consumer ${row.consumer} runs in ${area} any more`);
    try {
      await intake(consumer, eventOf(row), (tx) => store.settle(tx, keyOf(row), 'REDRIVEN', settler));
    } catch (error) {
      if (isDatabaseAway(error)) throw error;
      await store.failedAgain(db, keyOf(row), reasonOf(error));
      throw faults.failedPrecondition('REDRIVE_FAILED', `the consumer ${row.consumer} failed again: ${faultOf(error).message}`);
    }
  }

  return {
    know: (area, consumer) => void known.set(`${area} ${consumer.name}`, consumer),

    handlers: {
      async listEventLetters({ area, pageSize, pageToken, ...query }) {
        const db = dbOf(area);
        if (!db) return { letters: [], nextPageToken: '' };
        const bound = { area, ...query };
        const position = decodePage<[string, string]>(pageToken, bound);
        const rows = await store.list(db, {
          workspace: query.workspaceId,
          consumer: query.consumer,
          state: stateNameOf(query.state),
          from: query.createTimeFrom,
          to: query.createTimeTo,
          after: position && { event: toBytes('event', position[0], 'page_token'), consumer: position[1] },
          limit: pageSize + 1,
        });
        const page = rows.slice(0, pageSize);
        const last = rows.length > pageSize ? page.at(-1) : undefined;
        return {
          letters: page.map((row) => messageOf(area, row)),
          nextPageToken: last ? encodePage(bound, [fromBytes('event', last.event), last.consumer]) : '',
        };
      },

      async getEventLetter(named) {
        const { row } = await find(named);
        const { type, subject, workspace: workspaceId, data_schema: schema, data, event_time } = row;
        const event = { id: named.eventId, type, subject, workspaceId, schema, data: shown(contract, schema, data) };
        return { ...messageOf(named.area, row), event: { ...event, time: event_time ?? undefined } };
      },

      async redriveEventLetter(named) {
        const { db, row } = await find(named);
        if (row.state === 'DISCARDED') throw settled(row);
        if (row.state === 'DEAD') await again(named.area, db, row, named.settlerId);
        return messageOf(named.area, (await find(named)).row);
      },

      async discardEventLetter(named) {
        const { db, row } = await find(named);
        if (row.state === 'DEAD') await store.settle(db, keyOf(row), 'DISCARDED', named.settlerId);
        const now = (await find(named)).row;
        if (now.state !== 'DISCARDED') throw settled(now);
        return messageOf(named.area, now);
      },
    },
  };
}

const keyOf = ({ consumer, event }: store.LetterRow): store.LetterKey => ({ consumer, event });

const idOf = (area: string, consumer: string, eventId: string): string => `${area}.${consumer}.${eventId}`;

const settled = ({ state }: store.LetterRow): Fault =>
  faults.failedPrecondition('DEAD_LETTER_SETTLED', `the dead letter is ${state} already`, { state });

const STATES = new Map(Object.entries(DeadLetter_State).map(([name, state]) => [state, name as store.LetterState]));
const stateNameOf = (state: DeadLetter_State): store.LetterState => STATES.get(state) ?? 'DEAD';

const eventOf = (row: Whole): ReceivedEvent => ({
  id: fromBytes('event', row.event),
  type: row.type,
  subject: row.subject,
  workspace: row.workspace,
  version: row.version,
  schema: row.data_schema,
  time: row.event_time ?? row.create_time,
  data: row.data,
});

const messageOf = (area: string, row: store.LetterRow): DeadLetter =>
  DeadLetter.fromPartial({
    id: idOf(area, row.consumer, fromBytes('event', row.event)),
    kind: DeadLetter_Kind.EVENT,
    state: DeadLetter_State[row.state],
    area,
    consumer: row.consumer,
    attemptCount: row.failures,
    error: { message: row.error },
    createTime: row.create_time,
    settlerId: row.settler ?? '',
    ...(row.settle_time ? { settleTime: row.settle_time } : {}),
  });
