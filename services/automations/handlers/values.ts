// handlers/values.ts: the method of ValueService.
import type { ValueServiceService } from '#gen/millrace/automations/v1/value_service.ts';
import type { Db } from '#platform/db.ts';
import type { Handlers } from '#platform/handlers.ts';
import type { Logger } from '#platform/log.ts';
import type { Vault } from '../secret-vault.ts';
import { resolve } from '../values.ts';

export const valueHandlers = (deps: { db: Db; vault: Vault; log: Logger }): Handlers<ValueServiceService> => ({
  async resolveValues({ items }) {
    return { items: await resolve(deps, items) };
  },
});
