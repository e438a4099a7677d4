// Where large things are kept: staged in pieces, kept once they are whole, read by range, deleted. The store is a folder that all processes of an
// area share; another kind of store offers the same functions.
import { randomBytes } from 'node:crypto';
import { constants, type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setting, text } from './config.ts';
import { unavailable } from './errors.ts';

export const blobSettings = {
  blobFolder: setting(
    'MILLRACE_BLOB_FOLDER',
    text.optional(),
    'the folder for large files such as artifacts, the same one for all processes of an area; unset, none are kept',
  ),
};

export interface Blobs {
  stage(key: string): Promise<Stage>; // what was staged under the key before is still there
  read(key: string, from: number, length: number): Promise<AsyncIterable<Buffer>>; // throws where nothing is kept
  delete(key: string): Promise<void>; // kept or staged; what is being read is read to its end
}
export interface Stage {
  staged: number; // bytes that were there when it was opened
  write(data: Uint8Array, at: number): Promise<void>;
  read(length: number): AsyncIterable<Buffer>; // from the beginning
  keep(): Promise<void>; // durable and whole under its key when it has answered
  close(): Promise<void>;
}

export const PIECE_BYTES = 64 * 1024;
const KEY = /^[a-z0-9_]{3,64}$/;

export function openBlobs(folder: string | undefined): Blobs {
  const place = (kind: 'staged' | 'kept', key: string): string => {
    if (!folder) throw unavailable('nothing can be kept here: MILLRACE_BLOB_FOLDER is not set', 60_000);
    if (!KEY.test(key)) throw new Error(`${key} is not the key of a blob`);
    return kind === 'staged' ? join(folder, kind, key) : join(folder, kind, key.slice(-2), key); // the end of an id is random
  };

  return {
    // Whoever stages under the same key stages the same bytes, so that two writers do each other no harm.
    async stage(key) {
      const [staged, kept] = [place('staged', key), place('kept', key)];
      await mkdir(dirname(staged), { recursive: true, mode: 0o700 });
      const file = (await existing(staged)) ?? (await existing(kept)) ?? (await open(staged, constants.O_RDWR | constants.O_CREAT, 0o600));
      return {
        staged: (await file.stat()).size,
        async write(data, at) {
          for (let done = 0; done < data.length; ) done += (await file.write(data, done, data.length - done, at + done)).bytesWritten;
        },
        read: (length) => pieces(file, 0, length),
        async keep() {
          await file.datasync();
          await mkdir(dirname(kept), { recursive: true, mode: 0o700 });
          await rename(staged, kept).catch(async (error) => {
            const before = await existing(kept); // it was kept by an upload that was not answered
            if (!before) throw error;
            await before.close();
          });
          await sync(dirname(kept));
        },
        close: () => file.close(),
      };
    },

    async read(key, from, length) {
      const file = await open(place('kept', key), 'r').catch((error) => {
        throw unavailable('the content cannot be read now', 1000, error);
      });
      return closing(file, pieces(file, from, length));
    },

    async delete(key) {
      for (const kind of ['staged', 'kept'] as const) await rm(place(kind, key), { force: true });
    },
  };
}

// Whether the folder can be written to. Throws when it cannot.
export async function probeBlobs(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const file = join(folder, `probe-${randomBytes(8).toString('hex')}`);
  await (await open(file, 'wx', 0o600)).close();
  await rm(file);
}

const existing = (path: string): Promise<FileHandle | undefined> =>
  open(path, 'r+').catch((error) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });

async function* pieces(file: FileHandle, from: number, length: number): AsyncGenerator<Buffer> {
  for (let done = 0; done < length; ) {
    const wanted = Math.min(PIECE_BYTES, length - done);
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(wanted), 0, wanted, from + done);
    if (bytesRead === 0) throw unavailable('the content is shorter than it was');
    yield buffer.subarray(0, bytesRead);
    done += bytesRead;
  }
}

async function* closing(file: FileHandle, all: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  try {
    yield* all;
  } finally {
    await file.close();
  }
}

// A name is durable once its folder is.
async function sync(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  await handle.sync().finally(() => handle.close());
}
