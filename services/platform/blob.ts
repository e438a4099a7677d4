// Where large things are kept: staged in pieces, kept once they are whole, read by range, deleted. They are staged in a folder, and kept in it or in
// an object store that speaks S3, by the same names.
import { z } from 'zod';
import { openFolder } from './blob-folder.ts';
import { openObjects } from './blob-s3.ts';
import { type Rule, setting, text, type Values } from './config.ts';
import { unavailable } from './errors.ts';

const isStore: z.core.CheckFn<string> = ({ value, issues }) => {
  const { protocol, username, password, search } = URL.canParse(value) ? new URL(value) : new URL('none:');
  if (!/^https?:$/.test(protocol)) issues.push({ code: 'custom', input: '', message: 'must be http://host:port or https://host' });
  if (username || password || search) issues.push({ code: 'custom', input: '', message: 'must hold no key and no query' });
};

export const blobSettings = {
  blobFolder: setting(
    'MILLRACE_BLOB_FOLDER',
    text.optional(),
    'the folder for large files such as artifacts, the same one for all processes of an area; unset, none are kept. With an object store it holds only what is on its way there',
  ),
  blobS3Bucket: setting(
    'MILLRACE_BLOB_S3_BUCKET',
    text.regex(/^[a-zA-Z0-9._-]{3,255}$/, 'must be the name of a bucket').optional(),
    'the bucket of an object store that speaks S3: large files are kept there',
  ),
  blobS3Prefix: setting(
    'MILLRACE_BLOB_S3_PREFIX',
    text.regex(/^[\w.-]+(\/[\w.-]+)*$/, 'must be letters, digits, _, . and -, with / between').optional(),
    'what the names of all objects begin with, without a / at its end',
  ),
  blobS3Endpoint: setting(
    'MILLRACE_BLOB_S3_ENDPOINT',
    text.check(isStore).optional(),
    'the address of the object store; unset, Amazon S3 in the region',
  ),
  blobS3Region: setting('MILLRACE_BLOB_S3_REGION', text.default('us-east-1'), 'the region of the bucket; few stores but Amazon heed it'),
  blobS3AccessKey: setting(
    'MILLRACE_BLOB_S3_ACCESS_KEY',
    text.optional(),
    'the id of the access key; unset, credentials are looked for where the AWS SDK does: AWS_* variables, ~/.aws, the role of container or machine',
  ),
  blobS3SecretKey: setting('MILLRACE_BLOB_S3_SECRET_KEY', text.optional(), 'the secret of the access key'),
  blobS3PathStyle: setting(
    'MILLRACE_BLOB_S3_PATH_STYLE',
    z.enum(['true', 'false'], { error: 'must be true or false' }).optional(),
    'whether the bucket stands in the path of an address rather than in its host name; unset, where an endpoint is given',
  ),
};

// What the settings must be together.
export const blobRules: readonly Rule[] = [
  (isSet) =>
    isSet('MILLRACE_BLOB_S3_BUCKET') && !isSet('MILLRACE_BLOB_FOLDER')
      ? 'MILLRACE_BLOB_FOLDER: is not set, but MILLRACE_BLOB_S3_BUCKET needs it: what is on its way to the bucket stands there'
      : undefined,
  (isSet) => {
    const others = Object.values(blobSettings).flatMap(({ name }) => (name.includes('_S3_') && isSet(name) ? name : []));
    return others.length > 0 && !isSet('MILLRACE_BLOB_S3_BUCKET')
      ? `MILLRACE_BLOB_S3_BUCKET: is not set, but these are: ${others.join(', ')}`
      : undefined;
  },
  (isSet) => {
    const names = ['MILLRACE_BLOB_S3_ACCESS_KEY', 'MILLRACE_BLOB_S3_SECRET_KEY'];
    const [given, missing] = [names.find(isSet), names.find((name) => !isSet(name))];
    return given && missing ? `${missing}: is not set, but ${given} is: give both, or none` : undefined;
  },
];

export type BlobSettings = Values<typeof blobSettings>;

export interface Blobs {
  stage(key: string): Promise<Stage>; // what was staged or kept under the key before is still there
  size(key: string): Promise<number | undefined>; // of what is kept; undefined when it is certain that nothing is
  read(key: string, from: number, length: number): Promise<AsyncIterable<Buffer>>; // throws where nothing is kept
  delete(key: string): Promise<void>; // kept or staged; what is being read from a folder is read to its end
  sweep(): Promise<void>; // removes what somebody left staged a day ago
  probe(): Promise<void>; // throws when nothing can be kept, and says why
}
export interface Stage {
  staged: number; // bytes that were there when it was opened
  write(data: Uint8Array, at: number): Promise<void>;
  read(length: number): AsyncIterable<Buffer>; // from the beginning
  keep(): Promise<void>; // durable and whole under its key when it has answered; it may be tried again
  close(): Promise<void>;
}

export function openBlobs(settings: Pick<BlobSettings, 'blobFolder'> & Partial<BlobSettings>): Blobs {
  const { blobFolder: folder, blobS3Bucket: bucket, blobS3Endpoint: endpoint, blobS3AccessKey: id, blobS3SecretKey: secret } = settings;
  if (!folder) return { stage: nowhere, size: nowhere, read: nowhere, delete: nowhere, sweep: nowhere, probe: nowhere };
  if (!bucket) return openFolder(folder);
  return openObjects({
    folder,
    bucket,
    prefix: settings.blobS3Prefix ? `${settings.blobS3Prefix}/` : '',
    endpoint,
    region: settings.blobS3Region ?? 'us-east-1',
    key: id && secret ? { id, secret } : undefined,
    isPathStyle: settings.blobS3PathStyle ? settings.blobS3PathStyle === 'true' : endpoint !== undefined,
  });
}

async function nowhere(): Promise<never> {
  throw unavailable('nothing can be kept here: MILLRACE_BLOB_FOLDER is not set', 60_000);
}
