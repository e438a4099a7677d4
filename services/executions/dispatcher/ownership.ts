// Which servers a dispatcher takes, keeps and hands over. Pure. Servers are spread by rendezvous hashing: when a dispatcher comes or goes, only
// its own share moves. Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998.
import { createHash } from 'node:crypto';
import type { ServerRow, View } from './server-store.ts';

export interface Decision {
  claim: ServerRow[];
  release: Buffer[]; // to another that should have them
  lost: Buffer[]; // that somebody else owns now, or that are gone
}
export interface Mine {
  id: Buffer;
  epoch: number;
}

// The dispatcher that should own the server.
export function chosen(server: Buffer, dispatchers: readonly Buffer[]): Buffer | undefined {
  const weigh = (dispatcher: Buffer) => createHash('sha256').update(server).update(dispatcher).digest();
  const weighed = dispatchers.map((dispatcher) => ({ dispatcher, weight: weigh(dispatcher) }));
  return weighed.sort((a, b) => Buffer.compare(b.weight, a.weight))[0]?.dispatcher;
}

// `mayInherit`: whether this dispatcher has been in contact long enough to believe that another one is dead.
export function decide(me: Buffer, mine: readonly Mine[], { dispatchers, servers }: View, mayInherit: boolean): Decision {
  const isAlive = (id: Buffer) => dispatchers.some((one) => one.equals(id));
  const owned = new Map(servers.filter(({ owner }) => owner?.equals(me)).map((row) => [row.id.toString('hex'), row]));
  const isMine = ({ id, epoch }: Mine) => owned.get(id.toString('hex'))?.owner_epoch === epoch;
  const isFree = ({ id, owner }: ServerRow): boolean => {
    if (owner?.equals(me)) return !mine.some((one) => one.id.equals(id)); // left over from an answer that never came
    return owner === null || (mayInherit && !isAlive(owner));
  };
  const shouldHave = (id: Buffer) => chosen(id, dispatchers)?.equals(me) ?? false;
  return {
    claim: servers.filter((row) => isFree(row) && shouldHave(row.id)),
    release: mine.filter((one) => isMine(one) && !shouldHave(one.id)).map(({ id }) => id),
    lost: mine.filter((one) => !isMine(one)).map(({ id }) => id),
  };
}
