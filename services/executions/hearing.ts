// Notices of changes, heard by one subscription of the process for all who wait for an execution: subscribing for each call would cost
// the broker and this process two messages more, and the first change could be over before the broker knows who wants it.
import type { Bus } from '#platform/bus.ts';
import * as notices from './engine/notices.ts';

export type Hearing = Pick<Bus, 'onNotice' | 'onReconnect'>;
type Listen = (data: Uint8Array, subject: string) => void;

const CHANGED = notices.changed('');

export function openHearing(bus: Hearing): Hearing & { stop(): void } {
  const waiting = new Map<string, Set<Listen>>();
  const stop = bus.onNotice(notices.changed('*'), (data, subject) => {
    for (const listen of waiting.get(subject) ?? []) listen(data, subject);
  });
  return {
    onReconnect: bus.onReconnect,
    onNotice(subject, listen, group) {
      if (!subject.startsWith(CHANGED) || group) return bus.onNotice(subject, listen, group);
      const listening = waiting.get(subject) ?? new Set();
      waiting.set(subject, listening.add(listen));
      return () => {
        listening.delete(listen);
        if (listening.size === 0 && waiting.get(subject) === listening) waiting.delete(subject);
      };
    },
    stop,
  };
}
