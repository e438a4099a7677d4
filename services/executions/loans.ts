// The places that dispatchers lend to this process, until they are taken or the loan is over.
import type { Bus } from '#platform/bus.ts';
import { fromBytes } from '#platform/id.ts';
import { decodeLoan, encodeTaken, type Loan, type Taken } from './engine/loans.ts';
import * as notices from './engine/notices.ts';
import { hex } from './engine/sql.ts';

export interface Loans {
  take(count: number): Loan | undefined; // of one server, for one commit
  tell(loan: Loan, taken: Taken): void; // after it
  drop(loan: Loan): void; // the server is not as its owner said
  stop(): void;
}
interface Left {
  loan: Loan;
  until: number;
}

const LOAN_MS = 1500; // somewhat longer than the time between two
const GROUP = 'accept';

export function openLoans(bus: Pick<Bus, 'notify' | 'onNotice' | 'onReconnect'>): Loans {
  const known = new Map<string, Left>(); // by server
  const stops = [
    bus.onNotice(
      notices.loans,
      (data) => {
        const loan = decodeLoan(data);
        known.set(hex(loan.server), { loan, until: performance.now() + LOAN_MS });
      },
      GROUP,
    ),
    bus.onReconnect(() => known.clear()), // what is told may not arrive
  ];
  return {
    take(count) {
      for (const [server, { loan, until }] of known) {
        if (until < performance.now()) known.delete(server);
        else if (loan.places >= count) {
          loan.places -= count;
          return loan;
        }
      }
      return undefined;
    },
    tell({ owner }, taken) {
      bus.notify(notices.taken(fromBytes('dispatcher', owner)), encodeTaken(taken));
    },
    drop: ({ server }) => void known.delete(hex(server)),
    stop() {
      for (const stop of stops) stop();
    },
  };
}
