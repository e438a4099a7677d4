// Places that an idle dispatcher lends to those who accept: what takes one is claimed in the commit that accepts it, and the dispatcher is told.
import { decodeFresh, encodeFresh, type Fresh } from './fresh.ts';
import { format, hex, unless } from './sql.ts';

export interface Loan {
  owner: Buffer; // the dispatcher
  server: Buffer;
  epoch: number;
  places: number;
}
// What was claimed by a loan, in the order of the claims.
export interface Taken {
  server: Buffer;
  now: Date; // the time of the claims
  claimIds: readonly Buffer[];
  fresh: readonly Fresh[];
}

export const encodeLoan = ({ owner, server, epoch, places }: Loan): string => [hex(owner), hex(server), epoch, places].join(' ');

export function decodeLoan(data: Uint8Array): Loan {
  const [owner = '', server = '', epoch, places] = `${Buffer.from(data)}`.split(' ');
  return { owner: Buffer.from(owner, 'hex'), server: Buffer.from(server, 'hex'), epoch: Number(epoch), places: Number(places) };
}

// Undefined when that is too much for a notice.
export function encodeTaken({ server, now, claimIds, fresh }: Taken): string | undefined {
  const rows = encodeFresh(fresh);
  return rows && `${hex(server)} ${now.getTime()} ${claimIds.map(hex).join()}\n${rows}`;
}

export function decodeTaken(data: Uint8Array): Taken {
  const [head = '', rows = ''] = `${Buffer.from(data)}`.split('\n', 2);
  const [server = '', now, ids = ''] = head.split(' ');
  const claimIds = ids.split(',').map((id) => Buffer.from(id, 'hex'));
  return { server: Buffer.from(server, 'hex'), now: new Date(Number(now)), claimIds, fresh: decodeFresh(rows) };
}

// Fails with UNLIKE unless the server is its owner's still, nothing waits before them in their lanes, and no queue of the workspaces, nor they
// themselves, have a limit of what may run. Locks the server as a claim does, but waits for nobody: accepting depends on no dispatcher.
export const unlessLent = ({ owner, server, epoch }: Loan, lanes: readonly number[], workspaces: readonly Buffer[]): string =>
  unless(
    format(
      `COUNT(*) = 1 AND NOT EXISTS (SELECT 1 FROM ready WHERE lane IN (?))
    AND NOT EXISTS (SELECT 1 FROM lanes WHERE workspace IN (?) AND (max_running IS NOT NULL OR rate_per_second IS NOT NULL))
    AND NOT EXISTS (SELECT 1 FROM quotas WHERE workspace IN (?) AND running IS NOT NULL)`,
      [lanes, workspaces, workspaces],
    ),
    format(
      `FROM servers WHERE id = ? AND owner = ? AND owner_epoch = ? AND state = 'LIVE' AND NOT drained
    /*M!100600 LOCK IN SHARE MODE SKIP LOCKED */ /*!80000 FOR SHARE SKIP LOCKED */`,
      [server, owner, epoch],
    ),
  );
