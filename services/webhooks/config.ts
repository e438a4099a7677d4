// config.ts: the settings of webhooks.
import { integer, setting, text } from '#platform/config.ts';

const SECRET_BYTES = 32;

const secret = text
  .transform((value) => Buffer.from(value, 'base64'))
  .refine(
    (bytes) => bytes.length === SECRET_BYTES,
    `must be ${SECRET_BYTES} bytes in base64: make one with openssl rand -base64 ${SECRET_BYTES}`,
  );

export const settings = {
  keySecret: setting('MILLRACE_WEBHOOKS_KEY_SECRET', secret, 'encrypts the secrets of hooks; the same for every process of webhooks'),
  maxHooks: setting('MILLRACE_WEBHOOKS_MAX_HOOKS', integer(1000, 1, 1_000_000), 'how many hooks a workspace may have'),
  maxSubscriptions: setting(
    'MILLRACE_WEBHOOKS_MAX_SUBSCRIPTIONS',
    integer(100, 1, 10_000),
    'how many subscriptions to events a workspace may have',
  ),
  retentionDays: setting('MILLRACE_WEBHOOKS_RETENTION_DAYS', integer(30, 1, 3650), 'how long deliveries are kept'),
};
