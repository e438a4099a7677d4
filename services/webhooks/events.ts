// events.ts: the events that are listened to, and what subscriptions are sent of them: CloudEvents 1.0 in structured JSON.
import { fromBinary, toJson } from '@bufbuild/protobuf';
import type { Consumer, ReceivedEvent } from '#platform/consumer.ts';
import type { Contract } from '#platform/contract.ts';
import type { Db } from '#platform/db.ts';
import { isWanted } from './subscription.ts';
import * as system from './subscription-system.ts';

export interface Interest {
  has(workspace: string): boolean;
  isNone(): boolean;
}
interface Deps {
  db: Db;
  registry: Contract['registry'];
  interest: Interest;
  wake(): void; // something is to be sent
}
// biome-ignore lint/suspicious/noExplicitAny: an event's message as JSON
type Json = any;
// One happening in one workspace: some events tell of several.
interface Part {
  id: string;
  workspace: string;
  subject: string;
  data: Json;
}

const AREAS = ['tasks', 'automations', 'executions', 'schedules'];

// An event is looked at only where somebody has subscribed: most installations have nobody, and executions make many.
export const consumers = ({ db, registry, interest, wake }: Deps): Consumer[] =>
  AREAS.map((area) => ({
    name: `webhooks-${area}`,
    area,
    db,
    concerns: (event) =>
      event.workspace === ''
        ? !interest.isNone() && partsOf(registry, event).some(({ workspace }) => interest.has(workspace))
        : interest.has(event.workspace),
    async handle(tx, event) {
      const parts = partsOf(registry, event);
      const subscribers = await system.subscribers(tx, [...new Set(parts.map(({ workspace }) => workspace))]);
      const sendings = parts.flatMap((part) =>
        subscribers
          .filter((one) => one.workspace === part.workspace && isWanted(one, event.type) && one.createTime <= event.time)
          .map(({ workspace, id }) => ({
            workspace,
            subscriptionId: id,
            type: event.type,
            subject: part.subject,
            payload: JSON.stringify(cloudEvent(area, event, part)),
          })),
      );
      await system.insert(tx, sendings);
      if (sendings.length > 0) tx.executionPromise.then(wake, () => undefined);
    },
  }));

function partsOf(registry: Contract['registry'], event: ReceivedEvent): Part[] {
  const message = registry.getMessage(event.schema);
  if (!message) return [];
  const data = toJson(message, fromBinary(message, event.data), { registry, alwaysEmitImplicit: true }) as Json;
  if (!Array.isArray(data.items)) return [{ id: event.id, workspace: event.workspace, subject: event.subject, data }];
  return data.items.map((item: Json, index: number) => ({
    id: `${event.id}.${index}`,
    workspace: item.workspaceId,
    subject: item.execution.id,
    data: item,
  }));
}

const cloudEvent = (area: string, { type, time }: ReceivedEvent, { id, subject, workspace, data }: Part) => ({
  specversion: '1.0',
  id,
  type,
  source: `millrace/${area}`,
  subject,
  time: time.toISOString(),
  workspaceid: workspace,
  datacontenttype: 'application/json',
  data,
});
