// secrets.ts: the secrets that hooks and their senders share, kept sealed.
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';

const SECRET_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

// A new secret, in the form of Standard Webhooks: its key is the Base64 after the prefix; other senders take the whole text as the key.
export const make = (): string => `whsec_${randomBytes(SECRET_BYTES).toString('base64')}`;

export interface Vault {
  seal(owner: Buffer, secret: string): Buffer;
  open(owner: Buffer, sealed: Buffer): string; // throws when it was sealed for another owner, with another key, or changed
}

// AES-256-GCM under a key derived from the setting (RFC 5869), bound to the owner's id.
export function openVault(keySecret: Uint8Array): Vault {
  const key = Buffer.from(hkdfSync('sha256', keySecret, '', 'millrace webhooks secrets', 32));
  return {
    seal(owner, secret) {
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(owner);
      return Buffer.concat([nonce, cipher.update(secret, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    },
    open(owner, sealed) {
      const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, NONCE_BYTES)).setAAD(owner);
      decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
      return Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]).toString('utf8');
    },
  };
}
