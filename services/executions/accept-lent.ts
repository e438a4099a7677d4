// Claiming in the commit that accepts: a few executions that may start at once, while a dispatcher lends places.
import { randomBytes } from 'node:crypto';
import type { Entry } from './accept.ts';
import { startsNow } from './accept-store.ts';
import { freshOf } from './accept-tell.ts';
import { CLAIM_BYTES, type Claimed, readyOf, timesOf } from './engine/claims.ts';
import { fitsNotice } from './engine/fresh.ts';
import { unlessLent } from './engine/loans.ts';
import type { LoadSpecs } from './engine/specs.ts';
import type { Loans } from './loans.ts';

export interface Lender {
  loans: Loans;
  specs: LoadSpecs;
}
export interface Lent {
  claims: readonly Claimed[];
  fence: string[]; // what they are committed behind
  tell(): void; // the dispatcher, after the commit
  drop(): void; // the fence has failed
}

const MOST = 8; // more than that waits for a claim, which costs less for each

// Undefined when nobody lends places, or not all of it is plain.
export async function borrow({ loans, specs }: Lender, entries: readonly Entry[], now: Date): Promise<Lent | undefined> {
  if (entries.length === 0 || entries.length > MOST || !entries.every(isPlain)) return undefined;
  const fresh = entries.map(freshOf);
  const loan = fitsNotice(fresh) ? loans.take(entries.length) : undefined;
  if (!loan) return undefined;
  const spec = await specs(fresh);
  const claims = fresh.flatMap((one): Claimed[] => {
    const row = readyOf(one, now);
    const found = spec(one);
    if (!found) return [];
    const { expireTime, deadline } = timesOf(row, found);
    return [{ row, workspace: one.workspace, claimId: randomBytes(CLAIM_BYTES), server: loan.server, deadline, expireTime }];
  });
  if (claims.length < fresh.length) return undefined;
  const lanes = [...new Set(fresh.map(({ lane }) => lane))];
  return {
    claims,
    fence: [
      unlessLent(
        loan,
        lanes,
        fresh.map(({ workspace }) => workspace),
      ),
    ],
    tell: () => loans.tell(loan, { server: loan.server, now, claimIds: claims.map(({ claimId }) => claimId), fresh }),
    drop: () => loans.drop(loan),
  };
}

const isPlain = (entry: Entry): boolean => startsNow(entry) && !entry.limit && !entry.row.blocked; // a selector is not remembered at all
