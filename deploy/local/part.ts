// A part of the stack: a program that runs as long as the stack does.
import type { Env } from './environment.ts';

// Ends only what hangs: who ends by itself is seen at once, and each wait says what it waits for. A slow machine needs most of it, and so
// does a database that recovers after a crash. One for all, since a part may wait for another one.
export const START_SECONDS = 180;

export interface Part {
  name: string;
  what: string; // for people: "the database (MariaDB)"
  command: string;
  args: readonly string[];
  env: Env;
  address?: string; // where it is reached, host:port, for `make status`
  prepare?: () => Promise<void>; // before each start
  ready: () => Promise<Ready>; // throws what it waits for
  broken?: () => Promise<string>; // what only a new start mends; empty when there is nothing of the kind, or it cannot be seen
  nice?: number; // how far it gives way to the others when the processors are busy, as nice(1) counts
  startSeconds?: number; // the longest time until ready, START_SECONDS unless said
  stopSeconds: number; // from SIGTERM to SIGKILL
}
// What a ready part tells about itself.
export interface Ready {
  version?: string;
  note?: string; // for the banner
}
export type State = 'stopped' | 'starting' | 'ready' | 'restarting' | 'stopping';
