// The rpcs of identity, in the order of the contract.
import type { HttpBody } from '#gen/google/api/httpbody.ts';
import type { IdentityServiceService } from '#gen/millrace/identity/v1/identity_service.ts';
import type { Db } from '#platform/db.ts';
import type { Call, Handlers } from '#platform/handlers.ts';
import { decodePage, encodePage, pageSize } from '#platform/paging.ts';
import type { Accounts } from './accounts.ts';
import type { Keyring } from './keyring.ts';
import * as oauth from './oauth.ts';
import type { Origin, SignIn } from './sign-in.ts';
import * as store from './store.ts';
import * as tokens from './tokens.ts';

interface Deps {
  db: Db;
  accounts: Accounts;
  signIn: SignIn;
  keyring: Keyring;
  issuer: string;
  scopes: readonly string[];
}

const JSON_TYPE = 'application/json';
const KEYS_CACHE_SECONDS = 300;

export const handlers = ({ db, accounts, signIn, keyring, issuer, scopes }: Deps): Handlers<typeof IdentityServiceService> => ({
  register: (request, call) => accounts.register(request, call),

  async issueToken({ form }, call) {
    keepOut(call);
    try {
      const asked = oauth.parse(form?.contentType ?? '', form?.data ?? Buffer.alloc(0));
      const session =
        asked.grant === 'password'
          ? await signIn.withPassword(asked.username, asked.password, originOf(call))
          : await signIn.refresh(asked.refreshToken);
      return json(tokens.asTokenResponse(session));
    } catch (error) {
      const { error: name, message, httpCode } = oauth.errorOf(error);
      call.respond.set('x-http-code', String(httpCode));
      return json({ error: name, error_description: message });
    }
  },

  createSession({ username, password }, call) {
    keepOut(call);
    return signIn.withPassword(username, password, originOf(call));
  },

  refreshSession({ refreshToken }, call) {
    keepOut(call);
    return signIn.refresh(refreshToken);
  },

  async endSession(_request, { caller }) {
    await signIn.end(caller.session);
    return {};
  },

  getMe: async (_request, { caller }) => ({
    user: await store.getMember(db, caller.workspace, caller.user),
    workspaceId: caller.workspace,
    scopes: [...caller.scopes],
    sessionId: caller.session,
  }),

  async listUsers({ pageSize: asked, pageToken }) {
    const size = pageSize(asked);
    const users = await accounts.list(size + 1, decodePage<string>(pageToken, 'users'));
    const page = users.slice(0, size);
    return { users: page, nextPageToken: users.length > size ? encodePage('users', page.at(-1)?.id) : '' };
  },

  disableUser: ({ id }, { caller }) => accounts.disable(id, caller.user),

  enableUser: ({ id }) => accounts.enable(id),

  async getJwks(_request, call) {
    call.respond.set('cache-control', `public, max-age=${KEYS_CACHE_SECONDS}`);
    return { ...json({}), data: Buffer.from(keyring.jwks()) };
  },

  async getDiscovery(_request, call) {
    call.respond.set('cache-control', `public, max-age=${KEYS_CACHE_SECONDS}`);
    return json(tokens.discovery(issuer, scopes));
  },
});

const json = (value: unknown): HttpBody => ({ contentType: JSON_TYPE, data: Buffer.from(JSON.stringify(value)), extensions: [] });

// Answers with tokens must not be kept by caches (RFC 6749, section 5.1).
function keepOut(call: Call): void {
  call.respond.set('cache-control', 'no-store');
  call.respond.set('pragma', 'no-cache');
}

// The edge names an address of the internet by itself; of an inner network it appends it to what the caller wrote.
function originOf({ peer, metadata, signal }: Call): Origin {
  const outside = metadata.get('x-envoy-external-address')[0];
  const last = String(metadata.get('x-forwarded-for').at(-1) ?? '')
    .split(',')
    .at(-1)
    ?.trim(); // prettier-ignore
  return { peer: String(outside ?? (last || peer)), signal };
}
