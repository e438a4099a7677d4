// A store that speaks S3, for tests: rclone before a folder of its own, or the one that MILLRACE_TEST_S3 names. It is reached by a link that can be cut.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { CreateBucketCommand, ListMultipartUploadsCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3';
import { readSettings, setting, url } from '#platform/config.ts';
import { freePort } from '../deploy/local/ports.ts';
import { type Link, openLink } from './chaos/link.ts';
import { until } from './world.ts';

export interface Objects {
  env: Record<string, string>; // of processes that keep things there
  bucket: string;
  client: S3Client; // past the link
  link: Link;
  names(): Promise<string[]>; // of all objects
  unfinished(): Promise<string[]>; // names of uploads in parts that were not put together
  copy(from: string, to: string): Promise<void>; // by rclone; `store:<prefix>` is a folder in the bucket
  down(): Promise<void>; // the store is killed
  up(): Promise<void>;
  stop(): Promise<void>;
}

const { given } = readSettings({
  given: setting(
    'MILLRACE_TEST_S3',
    url.optional(),
    'an object store for tests, http://access-key:secret@host:port; unset, one of their own',
  ),
});
export const isOwnStore = given === undefined;

const RCLONE = fileURLToPath(new URL('../.venv/bin/rclone', import.meta.url));
const exec = promisify(execFile);

export async function startObjects(): Promise<Objects> {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-objects-'));
  const port = given ? Number(new URL(given).port) : await freePort();
  const { username: id, password: secret } = new URL(
    given ?? `http://id${randomBytes(4).toString('hex')}:${randomBytes(16).toString('hex')}@own`,
  );
  const bucket = `test-${randomBytes(6).toString('hex')}`;
  const link = await openLink(port);
  const client = clientOf(`http://127.0.0.1:${port}`, id, secret);
  const base = { PATH: '/usr/bin:/bin', HOME: folder, RCLONE_CONFIG: join(folder, 'none') };
  let child: ChildProcess | undefined;

  const objects: Objects = {
    env: {
      MILLRACE_BLOB_S3_BUCKET: bucket,
      MILLRACE_BLOB_S3_PREFIX: 'some/where',
      MILLRACE_BLOB_S3_ENDPOINT: `http://127.0.0.1:${link.port}`,
      MILLRACE_BLOB_S3_ACCESS_KEY: id,
      MILLRACE_BLOB_S3_SECRET_KEY: secret,
    },
    bucket,
    client,
    link,
    async names() {
      return ((await client.send(new ListObjectsV2Command({ Bucket: bucket }))).Contents ?? []).map(({ Key = '' }) => Key).sort();
    },
    async unfinished() {
      return ((await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }))).Uploads ?? []).map(({ Key = '' }) => Key);
    },
    async copy(from, to) {
      const store = (path: string) => path.replace(/^store:/, `store:${bucket}/`);
      const keys = { RCLONE_CONFIG_STORE_ACCESS_KEY_ID: id, RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY: secret };
      const remote = {
        RCLONE_CONFIG_STORE_TYPE: 's3',
        RCLONE_CONFIG_STORE_PROVIDER: 'Other',
        RCLONE_CONFIG_STORE_ENDPOINT: `http://127.0.0.1:${port}`,
      };
      await exec(RCLONE, ['copy', store(from), store(to)], { env: { ...base, ...keys, ...remote } });
    },
    async down() {
      child?.kill('SIGKILL');
      if (child) await once(child, 'exit');
      child = undefined;
    },
    async up() {
      const data = join(folder, 'data');
      mkdirSync(data, { recursive: true });
      const env = { ...base, RCLONE_AUTH_KEY: `"${id},${secret}"` };
      if (isOwnStore) child = spawn(RCLONE, ['serve', 's3', '--addr', `127.0.0.1:${port}`, data], { env, stdio: 'ignore' });
      await until('the object store to answer', () => client.send(new CreateBucketCommand({ Bucket: bucket })).then(() => true, isMade));
    },
    async stop() {
      client.destroy();
      link.stop();
      await objects.down();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  await objects.up();
  return objects;
}

const isMade = ({ name }: Error): boolean => /^Bucket(AlreadyExists|AlreadyOwnedByYou)$/.test(name);

const clientOf = (endpoint: string, accessKeyId: string, secretAccessKey: string): S3Client =>
  new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, maxAttempts: 1, credentials: { accessKeyId, secretAccessKey } });
