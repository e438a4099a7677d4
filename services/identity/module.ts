// Accounts, sign-in, and the keys and revocations by which every service judges tokens.
import { IdentityServiceService } from '#gen/millrace/identity/v1/identity_service.ts';
import type { Module } from '#platform/module.ts';
import { every } from '#platform/pause.ts';
import { openAccounts } from './accounts.ts';
import * as attempts from './attempt-system.ts';
import { settings } from './config.ts';
import { ensureAdmin } from './first-admin.ts';
import { handlers } from './handlers.ts';
import { openHashing } from './hashing.ts';
import { openKeyring, REFRESH_MS, rotationOf } from './keyring.ts';
import { openFeed } from './revocation-feed.ts';
import * as revocations from './revocation-system.ts';
import * as sessions from './session-system.ts';
import { openSignIn } from './sign-in.ts';

const SWEEP_MS = 60_000;
const BUILT_IN_ROLES = ['VIEWER', 'USER', 'ADMIN', 'PLATFORM_ADMIN'];

export const module: Module = {
  name: 'identity',
  migrations: new URL('./migrations/', import.meta.url),
  async start(p) {
    const { keySecret, keyDays, adminEmail, adminPassword, accessSeconds, sessionDays } = p.settings(settings);
    const { db, log, contract } = p;
    const issuer = p.config.publicUrl;
    const hashing = await openHashing();
    const keyring = await openKeyring({ db, secret: keySecret, rotation: rotationOf(keyDays), log });
    if (adminEmail) await ensureAdmin({ db, hashing, now: p.clock, log, email: adminEmail, password: adminPassword });
    const feed = openFeed({ db, bus: p.bus, log });
    const accounts = openAccounts({ db, hashing, onRevoked: feed.poke, now: p.clock, log });
    const tokens = { issuer, accessSeconds, sessionDays, scopesOfRole: contract.scopesOf };
    const signIn = openSignIn({ db, hashing, keyring, onRevoked: feed.poke, log, ...tokens });

    const scopes = [...new Set(BUILT_IN_ROLES.flatMap(contract.scopesOf))].sort();
    p.admin('/jwks', async () => ({ body: keyring.jwks() }));
    p.admin('/revocations', async (url) => {
      const asked = Number(url.searchParams.get('since'));
      return { body: JSON.stringify(await revocations.since(db, Number.isSafeInteger(asked) && asked > 0 ? asked : 0)) };
    });
    p.serve(IdentityServiceService, handlers({ db, accounts, signIn, keyring, issuer, scopes }));

    const sweep = () => Promise.all([sessions.sweep(db), attempts.sweep(db), revocations.sweep(db)]);
    const stops = [every(REFRESH_MS, keyring.refresh, log), every(SWEEP_MS, sweep, log), feed.stop];
    return async () => {
      await Promise.all(stops.map((stop) => stop()));
    };
  },
};
