// The secrets of an installation, made at its first start and never printed. Files are readable by their owner only.
import { createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const SERVICES = [
  'health',
  'identity',
  'tasks',
  'automations',
  'executions',
  'schedules',
  'webhooks',
  'dispatcher',
  'runner',
  'builder',
] as const;
export const ADMIN_EMAIL = 'admin@millrace.local';

export interface Secrets {
  serviceKeys: string; // folder with <service>.pem
  serviceJwks: string; // file with their public keys
  keySecretFile: string;
  webhooksSecretFile: string;
  secretKeysFile: string; // wrap the keys of users' secrets; put another line first to rotate
  adminPasswordFile: string;
  databasePassword: string;
  brokerPassword: string;
}

export function makeSecrets(folder: string): Secrets {
  const serviceKeys = join(folder, 'services');
  mkdirSync(serviceKeys, { recursive: true, mode: 0o700 });
  for (const service of SERVICES) once(join(serviceKeys, `${service}.pem`), newKey);
  const serviceJwks = join(folder, 'jwks.json');
  write(serviceJwks, JSON.stringify({ keys: SERVICES.map((service) => publicKey(join(serviceKeys, `${service}.pem`), service)) }));
  return {
    serviceKeys,
    serviceJwks,
    keySecretFile: once(join(folder, 'identity-key-secret'), () => randomBytes(32).toString('base64')),
    webhooksSecretFile: once(join(folder, 'webhooks-key-secret'), () => randomBytes(32).toString('base64')),
    secretKeysFile: once(join(folder, 'automations-secret-keys'), () => `k1:${randomBytes(32).toString('base64')}`),
    adminPasswordFile: once(join(folder, 'admin-password'), () => randomBytes(18).toString('base64url')),
    databasePassword: password(join(folder, 'database-password')),
    brokerPassword: password(join(folder, 'broker-password')),
  };
}

const password = (path: string): string =>
  readFileSync(
    once(path, () => randomBytes(18).toString('base64url')),
    'utf8',
  ).trim();

function once(path: string, make: () => string): string {
  if (!existsSync(path)) write(path, `${make().trimEnd()}\n`);
  return path;
}

// Complete or not there: a crash in between must not leave half a key.
function write(path: string, content: string): void {
  writeFileSync(`${path}.new`, content, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

const newKey = (): string => generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

const publicKey = (file: string, kid: string): object => ({
  ...createPublicKey(readFileSync(file, 'utf8')).export({ format: 'jwk' }),
  kid,
  alg: 'EdDSA',
  use: 'sig',
});
