// store.ts: what a signed-in person may read: the account, as a member of the workspace that the token names.
import { type User, user_StateFromJSON } from '#gen/millrace/identity/v1/user.ts';
import type { Db } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';

export interface UserRow {
  id: Buffer;
  email: string;
  username: string;
  display_name: string;
  state: string;
  workspace: Buffer;
  create_time: Date;
  update_time: Date;
}

export const USER = ['id', 'email', 'username', 'display_name', 'state', 'workspace', 'create_time', 'update_time'].map(
  (name) => `u.${name}`,
);

export async function getMember(db: Db, workspace: string, id: string): Promise<User> {
  const member = { 'm.workspace': toBytes('workspace', workspace), 'm.user': toBytes('user', id) };
  const row: UserRow | undefined = await db({ m: 'members' }).join({ u: 'users' }, 'u.id', 'm.user').where(member).first(USER);
  if (!row) throw notFound('user', id);
  return toUser(row);
}

export const toUser = (row: UserRow): User => ({
  id: fromBytes('user', row.id),
  email: row.email,
  username: row.username,
  displayName: row.display_name,
  state: user_StateFromJSON(row.state),
  workspaceId: fromBytes('workspace', row.workspace),
  createTime: row.create_time,
  updateTime: row.update_time,
});
