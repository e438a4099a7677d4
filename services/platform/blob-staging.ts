// What is on its way: one file for each key, in a folder.
import { randomBytes } from 'node:crypto';
import { constants, type FileHandle, mkdir, open, readdir, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { unavailable } from './errors.ts';

export interface Staging {
  has(key: string): Promise<boolean>;
  path(key: string): string;
  open(key: string): Promise<Staged>; // the file as it is, or an empty one
  remove(key: string): Promise<void>;
  sweep(): Promise<void>; // removes what nobody has written to for a day
  probe(): Promise<void>; // throws when the folder cannot be written to
}
export interface Staged {
  file: FileHandle;
  close(): Promise<void>;
}

export const PIECE_BYTES = 64 * 1024;
const KEY = /^[a-z0-9_]{3,64}$/;
const LEFT_MS = 24 * 3_600_000;

// Below the folder, or the prefix in a bucket: a plain copy of `kept` moves everything from one to the other. The end of an id is random.
export const nameOf = (key: string): string => `kept/${checked(key).slice(-2)}/${key}`;

function checked(key: string): string {
  if (!KEY.test(key)) throw new Error(`${key} is not the key of a blob`);
  return key;
}

export function openStaging(folder: string): Staging {
  const place = join(folder, 'staged');
  const path = (key: string): string => join(place, checked(key));
  const opened = new Set<{ key: string }>();

  // What is open here counts as written to now, for others who share the folder.
  async function look(key: string): Promise<void> {
    const age = Date.now() - (await stat(path(key))).mtimeMs;
    const isOpen = [...opened].some((one) => one.key === key);
    if (isOpen && age > LEFT_MS / 2) await utimes(path(key), new Date(), new Date());
    if (!isOpen && age > LEFT_MS) await rm(path(key), { force: true });
  }

  return {
    path,
    has: (key) => isThere(path(key)),
    // Whoever stages under the same key stages the same bytes, so that two writers do each other no harm.
    async open(key) {
      await mkdir(place, { recursive: true, mode: 0o700 });
      const file = await open(path(key), constants.O_RDWR | constants.O_CREAT, 0o600);
      const one = { key };
      opened.add(one);
      return {
        file,
        async close() {
          opened.delete(one);
          await file.close();
        },
      };
    },
    remove: (key) => rm(path(key), { force: true }),
    async sweep() {
      const keys = (await readdir(place).catch(absent)) ?? [];
      for (const key of keys.filter((one) => KEY.test(one))) await look(key).catch(absent);
    },
    async probe() {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const file = join(folder, `probe-${randomBytes(8).toString('hex')}`);
      await (await open(file, 'wx', 0o600)).close();
      await rm(file);
    },
  };
}

// For what need not be there: undefined then.
export function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

export const isThere = async (path: string): Promise<boolean> => (await stat(path).catch(absent)) !== undefined;

export async function writeAll(file: FileHandle, data: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < data.length; ) done += (await file.write(data, done, data.length - done, at + done)).bytesWritten;
}

export async function readAll(file: FileHandle, at: number, length: number): Promise<Buffer> {
  const data = Buffer.allocUnsafe(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(data, done, length - done, at + done);
    if (bytesRead === 0) throw unavailable('the content is shorter than it was');
    done += bytesRead;
  }
  return data;
}

export async function* pieces(file: FileHandle, from: number, length: number): AsyncGenerator<Buffer> {
  for (let done = 0; done < length; done += PIECE_BYTES) yield readAll(file, from + done, Math.min(PIECE_BYTES, length - done));
}
