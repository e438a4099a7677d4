// config.ts: the settings of identity.
import { z } from 'zod';
import { integer, setting, text } from '#platform/config.ts';

export const LONGEST_ACCESS_SECONDS = 3600;

const SECRET_BYTES = 32;

const secret = text
  .transform((value) => Buffer.from(value, 'base64'))
  .refine(
    (bytes) => bytes.length === SECRET_BYTES,
    `must be ${SECRET_BYTES} bytes in base64: make one with openssl rand -base64 ${SECRET_BYTES}`,
  );

export const settings = {
  keySecret: setting(
    'MILLRACE_IDENTITY_KEY_SECRET',
    secret,
    'encrypts the keys that tokens are signed with; the same for every process of identity',
  ),
  adminEmail: setting(
    'MILLRACE_IDENTITY_ADMIN_EMAIL',
    z.email('must be an address').optional(),
    'the account that manages the installation',
  ),
  adminPassword: setting('MILLRACE_IDENTITY_ADMIN_PASSWORD', text.optional(), 'its password, needed until the account exists'),
  accessSeconds: setting('MILLRACE_IDENTITY_ACCESS_SECONDS', integer(900, 60, LONGEST_ACCESS_SECONDS), 'how long an access token is valid'),
  sessionDays: setting('MILLRACE_IDENTITY_SESSION_DAYS', integer(30, 1, 365), 'how long a session lasts, however often it is refreshed'),
  keyDays: setting('MILLRACE_IDENTITY_KEY_DAYS', integer(30, 1, 365), 'how long a key signs tokens before the next one does'),
};
