// A part that keeps data is not started on a full disk. MariaDB would recover what a crash left without being able to write, give up in the middle,
// and leave indexes that name rows which are not there.
import { statfsSync } from 'node:fs';
import { StartFault } from './faults.ts';

export const LEAST_MIB = 64;

export function needRoom(folder: string, what: string): void {
  const { bavail, bsize } = statfsSync(folder);
  const left = Math.floor((bavail * bsize) / 2 ** 20);
  if (left >= LEAST_MIB) return;
  throw new StartFault(`the disk of ${folder} has ${left} MiB left; ${what} is started with ${LEAST_MIB} MiB or more`, 'make room on it');
}
