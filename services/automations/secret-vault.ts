// secret-vault.ts: how the values of secrets are kept. Envelope encryption: each value is encrypted by a data key of its own, and that key by
// one of the installation's, which never stands in the database. Both are bound to the workspace, the secret and the version of the value,
// so that no row opens in the place of another.
// Source: AES-256-GCM (NIST SP 800-38D); key wrapping and rotation as NIST SP 800-57 part 1, section 5.3.
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_ID = /^[a-zA-Z0-9_-]{1,32}$/;

// A key of the installation.
export interface WrappingKey {
  id: string;
  key: Buffer;
}
// A value as it is kept.
export interface Sealed {
  keyId: string; // the key that wrapped the data key
  wrappedKey: Buffer;
  sealed: Buffer;
}
// Where a value belongs.
export interface Place {
  workspace: Buffer;
  id: Buffer;
  valueVersion: number;
}
export interface Vault {
  keyId: string; // of the key that wraps what is new
  seal(place: Place, value: string): Sealed;
  open(place: Place, sealed: Sealed): string; // throws when it belongs elsewhere, was changed, or its key is not there
  rewrap(place: Place, sealed: Sealed): Sealed; // by the present key; the value stays as it is
}

// `<id>:<base64>`, separated by commas or white space.
export function parseKeys(text: string): WrappingKey[] {
  const keys = text
    .split(/[\s,]+/)
    .filter(Boolean)
    .map((entry) => {
      const [id = '', encoded = ''] = entry.split(':', 2);
      const key = Buffer.from(encoded, 'base64');
      if (!KEY_ID.test(id) || key.length !== KEY_BYTES)
        throw new Error(`must be <id>:<${KEY_BYTES} bytes in base64>: make one with echo "k1:$(openssl rand -base64 ${KEY_BYTES})"`);
      return { id, key };
    });
  if (new Set(keys.map(({ id }) => id)).size !== keys.length) throw new Error('names a key twice');
  return keys;
}

export function openVault(keys: readonly WrappingKey[]): Vault {
  const [present] = keys;
  if (!present) throw new Error('there is no key for secrets');
  const known = new Map(keys.map(({ id, key }) => [id, key]));

  function unwrap(place: Place, { keyId, wrappedKey }: Sealed): Buffer {
    const key = known.get(keyId);
    if (!key) throw new Error(`the key ${keyId} is not among MILLRACE_AUTOMATIONS_SECRET_KEYS`);
    return decrypt(key, wrappedKey, boundTo('key', place));
  }

  return {
    keyId: present.id,
    seal(place, value) {
      const dataKey = randomBytes(KEY_BYTES);
      return {
        keyId: present.id,
        wrappedKey: encrypt(present.key, dataKey, boundTo('key', place)),
        sealed: encrypt(dataKey, Buffer.from(value, 'utf8'), boundTo('value', place)),
      };
    },
    open: (place, kept) => decrypt(unwrap(place, kept), kept.sealed, boundTo('value', place)).toString('utf8'),
    rewrap: (place, kept) => ({
      keyId: present.id,
      wrappedKey: encrypt(present.key, unwrap(place, kept), boundTo('key', place)),
      sealed: kept.sealed,
    }),
  };
}

const boundTo = (what: 'key' | 'value', { workspace, id, valueVersion }: Place): Buffer =>
  Buffer.concat([Buffer.from(`millrace secret ${what} ${valueVersion} `), workspace, id]);

function encrypt(key: Buffer, plain: Buffer, bound: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(bound);
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

function decrypt(key: Buffer, kept: Buffer, bound: Buffer): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, kept.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES }).setAAD(bound);
  decipher.setAuthTag(kept.subarray(-TAG_BYTES));
  return Buffer.concat([decipher.update(kept.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]);
}
