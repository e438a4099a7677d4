// Large things in a folder that all processes of an area share: what is whole is renamed into place.
import { type FileHandle, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Blobs } from './blob.ts';
import { absent, isThere, nameOf, openStaging, pieces, type Staged, writeAll } from './blob-staging.ts';
import { unavailable } from './errors.ts';

export function openFolder(folder: string): Blobs {
  const staging = openStaging(folder);
  const place = (key: string): string => join(folder, nameOf(key));
  const kept = async (key: string): Promise<Staged | undefined> => {
    const file = await open(place(key), 'r+').catch(absent);
    return file && { file, close: () => file.close() };
  };

  return {
    async stage(key) {
      const { file, close } = (!(await staging.has(key)) && (await kept(key))) || (await staging.open(key));
      return {
        staged: (await file.stat()).size,
        write: (data, at) => writeAll(file, data, at),
        read: (length) => pieces(file, 0, length),
        async keep() {
          const to = place(key);
          await file.datasync();
          await mkdir(dirname(to), { recursive: true, mode: 0o700 });
          await rename(staging.path(key), to).catch(async (error) => {
            if (!(await isThere(to))) throw error; // else it was kept by an upload that was not answered
          });
          await sync(dirname(to));
        },
        close,
      };
    },

    size: async (key) => (await stat(place(key)).catch(absent))?.size,

    async read(key, from, length) {
      const file = await open(place(key), 'r').catch((error) => {
        throw unavailable('the content cannot be read now', 1000, error);
      });
      return closing(file, pieces(file, from, length));
    },

    async delete(key) {
      await staging.remove(key);
      await rm(place(key), { force: true });
    },

    sweep: staging.sweep,
    probe: staging.probe,
  };
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
