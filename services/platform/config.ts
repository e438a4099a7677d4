// Configuration: one schema of environment variables, read once at start; every fault is told at once.
// A variable may be given as `<NAME>_FILE`, a file that holds its value.
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { brokerAddress } from './broker-address.ts';

export interface Setting<T> {
  name: string;
  schema: z.ZodType<T>;
  doc: string;
}
export type Settings = Record<string, Setting<unknown>>;
// What settings must be together: answers what is wrong.
export type Rule = (isSet: (name: string) => boolean) => string | undefined;
export type Values<S extends Settings> = { [K in keyof S]: S[K] extends Setting<infer T> ? T : never };

const declared = new Map<string, Setting<unknown>>();

export function setting<T>(name: string, schema: z.ZodType<T>, doc: string): Setting<T> {
  const made = { name, schema, doc };
  if (!declared.has(name)) declared.set(name, made);
  return made;
}

// Every setting of the code that was loaded, for the documentation.
export const allSettings = (): Setting<unknown>[] => [...declared.values()];

export class ConfigFault extends Error {
  override readonly name = 'ConfigFault';
}

export function readSettings<S extends Settings>(
  settings: S,
  env: Record<string, string | undefined> = process.env,
  rules: readonly Rule[] = [],
): Values<S> {
  const faults: string[] = [];
  const values = Object.entries(settings).map(([key, { name, schema, doc }]) => {
    try {
      const parsed = schema.safeParse(given(name, env));
      if (parsed.success) return [key, parsed.data];
      faults.push(`${name}: ${parsed.error.issues.map((issue) => issue.message).join('; ')} (${doc})`);
    } catch (error) {
      faults.push(`${name}_FILE: ${(error as Error).message} (${doc})`);
    }
    return [key, undefined];
  });
  const isSet = (name: string): boolean => Boolean(env[name] || env[`${name}_FILE`]);
  faults.push(...rules.flatMap((rule) => rule(isSet) ?? []));
  if (faults.length > 0) throw new ConfigFault(`the configuration has ${faults.length} fault(s):\n  ${faults.join('\n  ')}`);
  return Object.fromEntries(values) as Values<S>;
}

function given(name: string, env: Record<string, string | undefined>): string | undefined {
  const file = env[`${name}_FILE`];
  if (file) return readFileSync(file, 'utf8').trim();
  return env[name] === '' ? undefined : env[name];
}

// Kinds of values.
export const text = z.string({ error: 'is not set' }).min(1, 'is empty');
export const flag = (otherwise: boolean) =>
  z
    .preprocess((value) => (value === undefined ? String(otherwise) : value), z.enum(['true', 'false'], { error: 'must be true or false' }))
    .transform((v) => v === 'true');
export const integer = (otherwise: number, min: number, max: number) =>
  z.coerce
    .number({ error: 'must be a number' })
    .int('must be a whole number')
    .min(min, `must be at least ${min}`)
    .max(max, `must be at most ${max}`)
    .default(otherwise);
export const number = (otherwise: number, min: number, max: number) =>
  z.coerce.number({ error: 'must be a number' }).min(min, `must be at least ${min}`).max(max, `must be at most ${max}`).default(otherwise);
export const list = z
  .string()
  .default('')
  .transform((value) =>
    value
      .split(',')
      .map((part) => part.trim())
      .filter(Boolean),
  ); // prettier-ignore
export const address = z.string({ error: 'is not set' }).regex(/^\S+:\d{1,5}$/, 'must be host:port');
export const url = z.url({ error: 'must be a URL' });

const isBroker: z.core.CheckFn<string> = ({ value, issues }) => {
  try {
    brokerAddress(value);
  } catch (error) {
    issues.push({ code: 'custom', input: value, message: (error as Error).message });
  }
};

const areaUrl = (area: string) =>
  setting(`MILLRACE_${area.toUpperCase()}_URL`, address.optional(), `where the ${area} area answers gRPC, host:port`);

// The areas that may be called, by the name of their folder.
export const areaSettings = {
  health: areaUrl('health'),
  identity: areaUrl('identity'),
  tasks: areaUrl('tasks'),
  automations: areaUrl('automations'),
  executions: areaUrl('executions'),
  schedules: areaUrl('schedules'),
  webhooks: areaUrl('webhooks'),
  runner: areaUrl('runner'),
} satisfies Settings;

export const platformSettings = {
  target: setting('MILLRACE_TARGET', list, 'the modules that this process runs, separated by commas, or all'),
  grpcAddress: setting(
    'MILLRACE_GRPC_ADDRESS',
    address.default('127.0.0.1:0'),
    'where this process answers gRPC, host:port; port 0 means a free one',
  ),
  adminAddress: setting(
    'MILLRACE_ADMIN_ADDRESS',
    address.default('127.0.0.1:0'),
    'where this process answers /livez, /readyz and /metrics, host:port',
  ),
  databaseUrl: setting(
    'MILLRACE_DATABASE_URL',
    url,
    'the database server, mysql://user:password@host:port/; on the same machine with ?socketPath=/path/of/its.sock, which takes less time',
  ),
  databasePrefix: setting(
    'MILLRACE_DATABASE_PREFIX',
    text.regex(/^[a-z][a-z0-9_]*$/, 'must be lower-case letters, digits and _').default('millrace'),
    'schemas are <prefix>_<area>',
  ),
  databaseConnections: setting('MILLRACE_DATABASE_CONNECTIONS', integer(10, 2, 500), 'the most connections of one module'),
  natsUrl: setting('MILLRACE_NATS_URL', text.check(isBroker), 'the NATS servers, nats://user:password@host:port, separated by commas'),
  natsPrefix: setting(
    'MILLRACE_NATS_PREFIX',
    text.regex(/^[a-zA-Z0-9_-]+$/, 'must be letters, digits, _ and -').default('millrace'),
    'subjects and streams begin with it',
  ),
  natsReplicas: setting(
    'MILLRACE_NATS_REPLICAS',
    integer(1, 1, 5),
    'on how many servers of a NATS cluster each stream is kept; 3 survives the loss of one',
  ),
  publicUrl: setting(
    'MILLRACE_PUBLIC_URL',
    url.transform((value) => value.replace(/\/$/, '')),
    'the address that users see, the issuer of tokens',
  ),
  identityJwksUrl: setting(
    'MILLRACE_IDENTITY_JWKS_URL',
    url.optional(),
    'where the public keys of user tokens are fetched; unset in the process that runs identity',
  ),
  serviceKeys: setting(
    'MILLRACE_SERVICE_KEYS',
    text,
    'the folder with <service>.pem, the private keys of the services that this process runs',
  ),
  serviceJwks: setting('MILLRACE_SERVICE_JWKS', text, 'the file with the public keys of all services, a JSON Web Key Set'),
  logLevel: setting(
    'MILLRACE_LOG_LEVEL',
    z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
    'the lowest level that is logged',
  ),
  drainMs: setting(
    'MILLRACE_DRAIN_MS',
    integer(500, 0, 60_000),
    'how long a stopping process says that it is not ready before it refuses calls, in milliseconds',
  ),
  imagePath: setting('MILLRACE_IMAGE', text.default('build/image.binpb'), 'the descriptor image of the contracts'),
} satisfies Settings;

export type Config = Values<typeof platformSettings> & { areas: Values<typeof areaSettings> };

export const readConfig = (env: Record<string, string | undefined> = process.env): Config => ({
  ...readSettings(platformSettings, env),
  areas: readSettings(areaSettings, env),
});
