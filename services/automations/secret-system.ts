// secret-system.ts: what works on secrets across workspaces. Handlers may not import it.
import type { Db } from '#platform/db.ts';
import type { Logger } from '#platform/log.ts';
import type { Vault } from './secret-vault.ts';

interface Row {
  workspace: Buffer;
  id: Buffer;
  value_version: number;
  key_id: string;
  wrapped_key: Buffer;
  sealed: Buffer;
}

const AT_ONCE = 100;

// Wraps anew what another key than the present one wrapped, so that the other one can be taken away. Values stay as they are. A secret that
// changes meanwhile, or whose key is not there, is left. Answers how many were wrapped anew.
export async function rewrap(db: Db, vault: Vault, log: Logger): Promise<number> {
  let done = 0;
  for (let after: Row | undefined; ; ) {
    const query = db('secrets').whereNot({ key_id: vault.keyId }).orderBy(['workspace', 'id']).limit(AT_ONCE);
    if (after) query.whereRaw('(workspace, id) > (?, ?)', [after.workspace, after.id]);
    const rows: Row[] = await query.select('workspace', 'id', 'value_version', 'key_id', 'wrapped_key', 'sealed');
    for (const row of rows) done += await rewrapOne(db, vault, log, row);
    after = rows.at(-1);
    if (rows.length < AT_ONCE) return done;
  }
}

async function rewrapOne(db: Db, vault: Vault, log: Logger, row: Row): Promise<number> {
  const { workspace, id, value_version, key_id } = row;
  try {
    const place = { workspace, id, valueVersion: value_version };
    const { keyId, wrappedKey } = vault.rewrap(place, { keyId: key_id, wrappedKey: row.wrapped_key, sealed: row.sealed });
    return await db('secrets').where({ workspace, id, value_version, key_id }).update({ key_id: keyId, wrapped_key: wrappedKey });
  } catch (error) {
    log.error({ error, key: key_id }, 'a secret cannot be opened by the keys of MILLRACE_AUTOMATIONS_SECRET_KEYS');
    return 0;
  }
}
