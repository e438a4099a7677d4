// keys.ts: the keys that access tokens are signed with (Ed25519, RFC 8037), kept sealed, and when each is made, signs and goes.
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
} from 'node:crypto';

export interface SigningKey {
  kid: string;
  privateKey: KeyObject;
  x: string; // the public key, base64url
  activeTime: number; // seconds; it signs from then on until a younger one does
}
export interface Rotation {
  periodSeconds: number; // how long a key signs
  publishSeconds: number; // how long it is published before it signs
  retainSeconds: number; // how long it is published after it signed: until its last token has expired
}
export interface Plan {
  makeActiveAt: number | undefined; // seconds
  drop: string[];
}

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

// What is due, given every key that exists. Without any key the first one signs at once: nobody holds an older answer.
export function plan(keys: readonly Pick<SigningKey, 'kid' | 'activeTime'>[], now: number, rotation: Rotation): Plan {
  const sorted = keys.toSorted((a, b) => a.activeTime - b.activeTime);
  const youngest = sorted.at(-1);
  if (!youngest) return { makeActiveAt: now, drop: [] };
  const due = youngest.activeTime + rotation.periodSeconds;
  const drop = sorted.filter((_, at) => (sorted[at + 1]?.activeTime ?? Number.POSITIVE_INFINITY) + rotation.retainSeconds < now);
  return {
    makeActiveAt: due - rotation.publishSeconds <= now ? Math.max(due, now + rotation.publishSeconds) : undefined,
    drop: drop.map((key) => key.kid),
  };
}

// The youngest key whose time has come.
export const signerAt = <K extends Pick<SigningKey, 'activeTime'>>(keys: readonly K[], now: number): K | undefined =>
  keys.filter((key) => key.activeTime <= now).toSorted((a, b) => b.activeTime - a.activeTime)[0];

export function generate(activeTime: number): SigningKey {
  const { privateKey } = generateKeyPairSync('ed25519');
  return fromPrivate(privateKey, activeTime);
}

// The key's name is its thumbprint (RFC 7638), so a name cannot be given to another key.
function fromPrivate(privateKey: KeyObject, activeTime: number): SigningKey {
  const { x = '' } = createPublicKey(privateKey).export({ format: 'jwk' });
  const kid = createHash('sha256')
    .update(JSON.stringify({ crv: 'Ed25519', kty: 'OKP', x }))
    .digest('base64url');
  return { kid, privateKey, x, activeTime };
}

// AES-256-GCM, bound to the key's name. Nothing public is kept beside it: what can be written into the table without the secret is
// never published.
export function seal(key: SigningKey, secret: Uint8Array, nonce: Uint8Array): Buffer {
  const cipher = createCipheriv('aes-256-gcm', sealingKey(secret), nonce).setAAD(Buffer.from(key.kid));
  const plain = key.privateKey.export({ format: 'der', type: 'pkcs8' });
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

export function open(kid: string, sealed: Buffer, secret: Uint8Array, activeTime: number): SigningKey {
  const decipher = createDecipheriv('aes-256-gcm', sealingKey(secret), sealed.subarray(0, NONCE_BYTES)).setAAD(Buffer.from(kid));
  decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
  const plain = Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]);
  return fromPrivate(createPrivateKey({ key: plain, format: 'der', type: 'pkcs8' }), activeTime);
}

const sealingKey = (secret: Uint8Array): Buffer => Buffer.from(hkdfSync('sha256', secret, '', 'millrace identity signing keys', 32));

export const jwks = (keys: readonly SigningKey[]): string =>
  JSON.stringify({ keys: keys.map(({ kid, x }) => ({ kty: 'OKP', crv: 'Ed25519', alg: 'EdDSA', use: 'sig', kid, x })) });
