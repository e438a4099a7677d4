// sign-in.ts: gives, renews and ends sessions.
import { randomBytes } from 'node:crypto';
import type { Session } from '#gen/millrace/identity/v1/session.ts';
import { User_State } from '#gen/millrace/identity/v1/user.ts';
import type { Db, Tx } from '#platform/db.ts';
import { newId } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { counter } from '#platform/metrics.ts';
import { emit } from '#platform/outbox.ts';
import * as attempt from './attempt.ts';
import * as attempts from './attempt-system.ts';
import * as events from './events.ts';
import type { Hashing } from './hashing.ts';
import type { Keyring } from './keyring.ts';
import { revoke } from './revocation-system.ts';
import * as session from './session.ts';
import * as sessions from './session-system.ts';
import * as tokens from './tokens.ts';
import { faults, scopesOf } from './user.ts';
import * as users from './user-system.ts';

export interface SignIn {
  withPassword(name: string, password: string, from: Origin): Promise<Session>;
  refresh(token: string): Promise<Session>;
  end(sessionId: string): Promise<void>;
}
export interface Origin {
  peer: string; // the caller's address
  signal: AbortSignal;
}
interface Options {
  db: Db;
  hashing: Hashing;
  keyring: Keyring;
  onRevoked: () => void; // something was revoked and committed
  issuer: string;
  accessSeconds: number;
  sessionDays: number;
  scopesOfRole: (role: string) => string[];
  log: Logger;
}
interface Granted {
  grant: tokens.Grant;
  refreshToken: string;
  expireTime: Date;
}

const NONCE_BYTES = 12;

const signIns = counter('millrace_identity_sign_ins_total', 'Sign-ins by password', ['outcome']);
const refreshes = counter('millrace_identity_refreshes_total', 'Refresh tokens presented', ['outcome']);

export function openSignIn({ db, hashing, keyring, onRevoked, issuer, accessSeconds, sessionDays, scopesOfRole, log }: Options): SignIn {
  const flights = new Map<string, Promise<Session>>(); // one token is exchanged once at a time; who presents it meanwhile shares the answer

  async function grantOf(tx: Tx, ids: { sessionId: string; userId: string; workspaceId: string }): Promise<tokens.Grant> {
    const { roles, isPlatformAdmin, issuedAt } = await users.standing(tx, ids.userId, ids.workspaceId);
    return { ...ids, scopes: scopesOf(roles, isPlatformAdmin, scopesOfRole), issuedAt };
  }

  async function answer({ grant, refreshToken, expireTime }: Granted): Promise<Session> {
    return {
      id: grant.sessionId,
      accessToken: await tokens.sign(grant, keyring.signer(grant.issuedAt), issuer, accessSeconds),
      expiresIn: accessSeconds,
      refreshToken,
      refreshExpireTime: expireTime,
      userId: grant.userId,
      workspaceId: grant.workspaceId,
      scopes: grant.scopes,
    };
  }

  // The password was right. The lock on the account is looked at again, because wrong ones may have been tried meanwhile.
  const begin = (credential: users.Credential, subject: attempt.Subject): Promise<Granted> =>
    db.transaction(async (tx) => {
      const locked = await attempts.forgive(tx, subject);
      if (locked > 0) throw attempt.tooMany(locked);
      const account = await users.hold(tx, credential.account.user.id);
      if (account.user.state !== User_State.ACTIVE)
        throw faults.permissionDenied('USER_DISABLED', 'the account is disabled: ask an administrator');
      const ids = { sessionId: newId('session'), userId: account.user.id, workspaceId: account.user.workspaceId };
      const secret = randomBytes(session.SECRET_BYTES);
      const { expireTime } = await sessions.begin(tx, { ...ids, id: ids.sessionId, days: sessionDays, digest: session.digest(secret) });
      await emit(tx, events.loggedIn(account));
      return { grant: await grantOf(tx, ids), refreshToken: session.tokenOf(secret), expireTime };
    });

  const exchange = (secret: Buffer, sessionId: string): Promise<Granted | 'REUSED' | undefined> =>
    db.transaction(async (tx) => {
      const used = session.digest(secret);
      const found = await sessions.lock(tx, sessionId, used);
      const verdict = found ? session.judge(found) : 'REFUSED';
      refreshes.inc({ outcome: verdict });
      if (!found || verdict === 'REFUSED') return undefined;
      if (verdict === 'REFUSED_AS_REUSED') return 'REUSED';
      if (verdict === 'REUSED') {
        await sessions.end(tx, sessionId, 'TOKEN_REUSED');
        await revoke(tx, sessionId);
        return 'REUSED'; // not thrown: the transaction must be kept
      }
      const successor = found.replay ? session.open(found.replay, secret, sessionId) : randomBytes(session.SECRET_BYTES);
      if (!found.replay) {
        const sealed = session.seal(successor, secret, sessionId, randomBytes(NONCE_BYTES));
        await sessions.rotate(tx, sessionId, { used, successor: session.digest(successor), sealed });
      }
      return { grant: await grantOf(tx, found), refreshToken: session.tokenOf(successor), expireTime: found.expireTime };
    });

  async function renew(secret: Buffer, digest: Buffer): Promise<Session> {
    const found = await sessions.find(db, digest);
    const outcome = found && (await exchange(secret, found.sessionId));
    if (!found) refreshes.inc({ outcome: 'UNKNOWN' });
    if (!found || !outcome) throw session.refused();
    if (outcome !== 'REUSED') return answer(outcome);
    onRevoked();
    log.warn({ user: found.userId, session: found.sessionId }, 'a used refresh token was presented again: its session is ended');
    throw session.reused();
  }

  return {
    async withPassword(name, password, { peer, signal }) {
      const credential = await users.findCredential(db, name);
      const account = attempt.ofAccount(credential?.account.user.id, name);
      const subjects = [account, attempt.ofAddress(peer)].filter((subject) => subject !== undefined);
      const locked = await attempts.lockedMs(db, subjects);
      if (locked > 0) {
        signIns.inc({ outcome: 'locked' });
        throw attempt.tooMany(locked);
      }
      if (!(await hashing.verify(credential?.passwordHash, password, signal)) || !credential) {
        for (const subject of subjects) await attempts.fail(db, subject);
        signIns.inc({ outcome: 'invalid' });
        log.info({ user: credential?.account.user.id, peer }, 'a sign-in failed'); // never the name: people type passwords there
        throw faults.unauthenticated('CREDENTIALS_INVALID', 'the name or the password is wrong');
      }
      const granted = await begin(credential, account);
      signIns.inc({ outcome: 'ok' });
      log.info({ user: granted.grant.userId, session: granted.grant.sessionId, peer }, 'signed in');
      return answer(granted);
    },

    async refresh(token) {
      const secret = session.secretOf(token);
      if (!secret) throw session.refused();
      const digest = session.digest(secret);
      const name = digest.toString('base64');
      const answered = flights.get(name) ?? renew(secret, digest).finally(() => flights.delete(name));
      flights.set(name, answered);
      return answered;
    },

    async end(sessionId) {
      await db.transaction(async (tx) => {
        if (await sessions.end(tx, sessionId, 'SIGNED_OUT')) await revoke(tx, sessionId);
      });
      onRevoked();
      log.info({ session: sessionId }, 'signed out');
    },
  };
}
