// Logs: JSON lines by pino. Secrets are redacted by key wherever they stand.
import { type DestinationStream, type Logger, pino, stdTimeFunctions } from 'pino';

export type { Logger } from 'pino';

const SECRET_KEYS = [
  'password',
  'accessToken',
  'access_token',
  'refreshToken',
  'refresh_token',
  'authorization',
  'token',
  'secret',
  'source',
  'input',
  'output',
  'form',
  'natsUrl',
  'databaseUrl',
];

export const openLog = (level: string, destination?: DestinationStream): Logger =>
  pino(
    {
      level,
      timestamp: stdTimeFunctions.isoTime,
      base: { pid: process.pid },
      redact: { paths: SECRET_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]), censor: '[redacted]' },
      serializers: { error: errorOf },
    },
    ...(destination ? [destination] : []),
  );

// What is logged of an error: never its properties, which may hold a statement with its values.
function errorOf(error: unknown): object {
  if (!(error instanceof Error)) return { message: String(error) };
  const { code, errno, reason } = error as Error & { code?: unknown; errno?: unknown; reason?: unknown };
  const sql = 'sqlMessage' in error; // mysql2 puts the whole statement into `message`
  const message = withoutLogins(String(sql ? error.sqlMessage : error.message));
  return { type: error.name, message, code, errno, reason, stack: sql ? undefined : withoutLogins(error.stack ?? '') };
}

// Addresses may hold a password: nats://user:password@host.
export const withoutLogins = (text: string): string => text.replace(/:\/\/[^\s/]+@/g, '://[redacted]@');
