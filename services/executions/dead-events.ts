// Events that consumers gave up, in whichever area: each area's process is asked for its own.
import { status } from '@grpc/grpc-js';
import type { DeadLetter } from '#gen/millrace/executions/v1/dead_letter.ts';
import type { DeadLetterFilter } from '#gen/millrace/executions/v1/dead_letter_service.ts';
import { EventLetterServiceService } from '#gen/millrace/executions/v1/event_letter_service.ts';
import type { ClientOf } from '#platform/client.ts';
import { Fault, notFound } from '#platform/errors.ts';
import { type Platform, StartFault } from '#platform/module.ts';

export interface Place {
  area: string;
  workspaceId: string; // empty: any
  consumer: string;
  eventId: string;
}
export interface DeadEvents {
  areas: readonly string[];
  page(area: string, workspaceId: string, filter: DeadLetterFilter, size: number, token: string): Promise<Page>;
  get(place: Place): Promise<DeadLetter>;
  redrive(place: Place, settlerId: string): Promise<DeadLetter>;
  discard(place: Place, settlerId: string): Promise<DeadLetter>;
}
export interface Page {
  letters: DeadLetter[];
  next: string; // empty at the end
  isReachable: boolean;
}
type Client = ClientOf<typeof EventLetterServiceService>;

const WITHOUT_EVENTS = ['health', 'runner'];
const AWAY = new Set([status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.UNIMPLEMENTED]); // an older process does not know the method

export function openDeadEvents({ client, config }: Pick<Platform, 'client' | 'config'>): DeadEvents {
  const areas = Object.keys(config.areas).filter((area) => !WITHOUT_EVENTS.includes(area));
  const clients = new Map(areas.flatMap((area): [string, Client][] => connect(client, area)));
  const of = ({ area, consumer, eventId }: Place): Client => {
    const found = clients.get(area);
    if (!found) throw notFound('dead letter', `${area}.${consumer}.${eventId}`);
    return found;
  };
  return {
    areas: [...clients.keys()].sort(),
    async page(area, workspaceId, { consumer, state, createTimeFrom, createTimeTo }, pageSize, pageToken) {
      try {
        const asked = { area, workspaceId, consumer, state, createTimeFrom, createTimeTo, pageSize, pageToken };
        const answer = await clients.get(area)?.listEventLetters(asked);
        return { letters: answer?.letters ?? [], next: answer?.nextPageToken ?? '', isReachable: true };
      } catch (error) {
        if (!(error instanceof Fault && AWAY.has(error.code))) throw error;
        return { letters: [], next: '', isReachable: false };
      }
    },
    get: (place) => of(place).getEventLetter(place),
    redrive: (place, settlerId) => of(place).redriveEventLetter({ ...place, settlerId }),
    discard: (place, settlerId) => of(place).discardEventLetter({ ...place, settlerId }),
  };
}

// An area whose address is not known here, such as in a test, has none that could be asked for.
function connect(client: Platform['client'], area: string): [string, Client][] {
  try {
    return [[area, client(EventLetterServiceService, area)]];
  } catch (error) {
    if (error instanceof StartFault) return [];
    throw error;
  }
}
