// handlers/secrets.ts: the methods of SecretService, in the contract's order.
import { Secret } from '#gen/millrace/automations/v1/secret.ts';
import type { SecretServiceService } from '#gen/millrace/automations/v1/secret_service.ts';
import type { Db } from '#platform/db.ts';
import type { Handlers } from '#platform/handlers.ts';
import { newId, toBytes } from '#platform/id.ts';
import { claimKey } from '#platform/idempotency.ts';
import { maskedFields } from '#platform/mask.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import { faults } from '../automation.ts';
import * as secret from '../secret.ts';
import type { Vault } from '../secret-vault.ts';
import * as store from '../store/secrets.ts';

interface Deps {
  db: Db;
  vault: Vault;
  clock: () => Date;
  maxSecrets: number;
}

export const secretHandlers = ({ db, vault, clock, maxSecrets: max }: Deps): Handlers<SecretServiceService> => {
  const seal = (workspace: string, { id, valueVersion }: Secret, value: string) =>
    vault.seal({ workspace: toBytes('workspace', workspace), id: toBytes('secret', id), valueVersion }, value);

  return {
    async createSecret({ secret: draft = Secret.fromPartial({}) }, call) {
      const { workspace, user } = call.caller;
      const made = secret.accept(draft, user, newId('secret'), clock());
      const sealed = seal(workspace, made, draft.value);
      return db.transaction(async (tx) => {
        const earlier = await claimKey(tx, call, made.id);
        if (earlier) return store.get(tx, workspace, earlier);
        if ((await store.count(tx, workspace)) >= max) {
          const message = `the workspace has ${max} secrets, as many as it may: delete one`;
          throw faults.failedPrecondition('TOO_MANY_SECRETS', message, { max: `${max}` });
        }
        await store.insert(tx, workspace, made, sealed);
        return made;
      });
    },

    async getSecret({ id }, { caller }) {
      return store.get(db, caller.workspace, id);
    },

    async listSecrets({ name, pageSize: asked, pageToken }, { caller }) {
      const query = { name };
      const size = pageSize(asked);
      const found = await store.list(db, caller.workspace, name, decodePage<string>(pageToken, query), size + 1);
      const { items, last } = cutPage(found, size, Secret);
      return { secrets: items, nextPageToken: last ? encodePage(query, last.name) : '' };
    },

    async updateSecret({ id, secret: draft = Secret.fromPartial({}), updateMask }, { caller }) {
      const fields = maskedFields(updateMask, draft, secret.UPDATABLE, Secret);
      return db.transaction(async (tx) => {
        const before = await store.lock(tx, caller.workspace, id);
        const after = secret.update(before, draft, fields, clock());
        await store.save(tx, caller.workspace, before, after);
        return after;
      });
    },

    async rotateSecret({ id, value }, { caller }) {
      return db.transaction(async (tx) => {
        const before = await store.lock(tx, caller.workspace, id);
        const after = secret.rotate(before, value, caller.user, clock());
        await store.save(tx, caller.workspace, before, after, seal(caller.workspace, after, value));
        return after;
      });
    },

    async deleteSecret({ id }, { caller }) {
      await db.transaction((tx) => store.remove(tx, caller.workspace, id));
      return {};
    },
  };
};
