// Lends places: while there is nothing to do, half of each server's free ones are for those who accept (engine/loans.ts). A loan replaces the one before.
import type { Bus } from '#platform/bus.ts';
import { encodeLoan } from '../engine/loans.ts';
import * as notices from '../engine/notices.ts';
import { hex } from '../engine/sql.ts';
import type { Session } from './session.ts';

interface Deps {
  bus: Pick<Bus, 'notify'>;
  me: Buffer;
  sessions(): readonly Session[];
  isIdle(): boolean;
}
export interface Lender {
  lend(): void; // now and then
  used(server: Buffer, count: number): void;
}

export function openLender({ bus, me, sessions, isIdle }: Deps): Lender {
  const left = new Map<string, number>(); // places of the last loan, by server

  function lendOf({ server, credits }: Session): void {
    const places = isIdle() ? Math.floor(credits() / 2) : 0;
    left.set(hex(server.id), places);
    if (places > 0) bus.notify(notices.loans, encodeLoan({ owner: me, server: server.id, epoch: server.epoch, places }));
  }

  return {
    lend() {
      left.clear();
      for (const session of sessions()) lendOf(session);
    },
    used(server, count) {
      const key = hex(server);
      const places = (left.get(key) ?? 0) - count;
      left.set(key, places);
      const session = sessions().find((one) => one.server.id.equals(server));
      if (session && places * 4 < session.credits()) lendOf(session); // half of what would be lent now
    },
  };
}
