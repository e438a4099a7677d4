// A small disk of its own for a part's data: a loop device with ext4. It can be filled up, and it can lose its power.
// Needs root and a mount namespace of this process's own (`unshare --mount`), which takes the disk away however the process ends.
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../world.ts';

export interface Disk {
  folder: string;
  fill(): void; // no byte is free any more
  free(): void;
  losePower(): void; // what was not on the disk yet never comes there; every access fails until it is mounted again
  mount(): void;
  unmount(): Promise<void>; // what was not on the disk is forgotten then
  remove(): void;
}

// Ends with another process when there is no namespace, or no loop device.
export const SHUTDOWN = `
import fcntl, os, struct, sys
EXT4_IOC_SHUTDOWN = 0x8004587D  # without flushing the journal, as xfstests simulate a power cut
NOLOGFLUSH = 2
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), EXT4_IOC_SHUTDOWN, struct.pack('I', NOLOGFLUSH))
`;

const run = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

// Why there can be no disk here; empty when there can.
export function whyNoDisk(): string {
  if (process.getuid?.() !== 0) return 'disks are for root';
  if (process.env.CHAOS_MOUNTS !== '1') return 'there is no mount namespace of its own';
  try {
    run('losetup', '--find');
    return '';
  } catch {
    return 'there is no free loop device';
  }
}

const LITTLE = 256 * 1024;
const size = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

function isDone(work: () => void): boolean {
  try {
    work();
    return true;
  } catch {
    return false;
  }
}

export function makeDisk(folder: string, image: string, mebibytes: number): Disk {
  writeFileSync(image, '');
  truncateSync(image, mebibytes * 2 ** 20);
  run('mkfs.ext4', '-q', '-m', '0', image);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const rubbish = join(folder, 'rubbish');
  const disk: Disk = {
    folder,
    fill() {
      // Allocated, not written: this process must not stand still, the links are in it.
      const { bavail, bsize } = statfsSync(folder);
      for (let share = bavail * bsize; share > LITTLE; share /= 2)
        isDone(() => run('fallocate', '--offset', String(size(rubbish)), '--length', String(Math.floor(share)), rubbish));
      const file = openSync(rubbish, 'a');
      for (let piece = 64 * 1024; piece >= 512; piece /= 2) {
        const bytes = Buffer.alloc(piece, 1);
        try {
          while (writeSync(file, bytes) === piece);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        }
      }
      closeSync(file); // an open file that is removed keeps its room
    },
    free: () => rmSync(rubbish, { force: true }),
    losePower: () => void run('python3', '-c', SHUTDOWN, folder),
    mount: () => void run('mount', '-o', 'loop', image, folder),
    async unmount() {
      await until('nobody to use the disk', () => isDone(() => run('umount', folder)));
      // Scripts have mount namespaces of their own: while one of them lives, so does the disk as it was.
      await until('its device to be free', () => run('losetup', '--associated', image) === '', 60_000);
    },
    remove: () => void run('umount', '--lazy', folder), // also while somebody still looks at it
  };
  disk.mount();
  rmSync(join(folder, 'lost+found'), { recursive: true, force: true }); // neither MariaDB nor NATS expects it
  return disk;
}
