// user-system.ts: accounts in the database, over all workspaces: for sign-up, sign-in and the administrators of the installation.
import { user_StateToJSON } from '#gen/millrace/identity/v1/user.ts';
import type { Db, Tx } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import { toBytes } from '#platform/id.ts';
import { toUser, USER, type UserRow } from './store.ts';
import { type Account, faults, signInName, workspaceName } from './user.ts';

interface Row extends UserRow {
  platform_admin: number;
  version: number;
}
export interface Credential {
  account: Account;
  passwordHash: string;
}
// What a token for somebody may hold just now.
export interface Standing {
  roles: string[];
  isPlatformAdmin: boolean;
  issuedAt: number; // seconds, by the database's clock, and after everything that was revoked
}

const ACCOUNT = [...USER, 'u.platform_admin', 'u.version'];

// Makes the account, its credential and its personal workspace, of which it is the administrator.
export async function insert(tx: Tx, account: Account, passwordHash: string): Promise<void> {
  const { user } = account;
  const id = toBytes('user', user.id);
  const workspace = toBytes('workspace', user.workspaceId);
  const create_time = user.createTime;
  const row = { id, email: user.email, username: user.username, workspace, create_time, ...changeable(account) };
  await tx('users')
    .insert(row)
    .catch((error) => Promise.reject(takenBy(error))); // prettier-ignore
  await tx('credentials').insert({ user: id, password_hash: passwordHash, update_time: create_time });
  await tx('workspaces').insert({ id: workspace, name: workspaceName(user), personal: true, create_time });
  await tx('members').insert({ workspace, user: id, role: 'ADMIN', create_time });
}

function takenBy(error: { code?: string; sqlMessage?: string }): unknown {
  if (error.code !== 'ER_DUP_ENTRY') return error;
  if (error.sqlMessage?.includes('by_username'))
    return faults.alreadyExists('USERNAME_TAKEN', 'the username has an account: choose another one');
  return faults.alreadyExists('EMAIL_TAKEN', 'the address has an account: sign in with it');
}

export const get = (db: Db, id: string): Promise<Account> => first(id, db({ u: 'users' }));

// The account, which nobody else can change before the transaction ends.
export const lock = (tx: Tx, id: string): Promise<Account> => first(id, tx({ u: 'users' }).forUpdate());

async function first(id: string, query: ReturnType<Db>): Promise<Account> {
  const row: Row | undefined = await query.where('u.id', toBytes('user', id)).first(ACCOUNT);
  if (!row) throw notFound('user', id);
  return toAccount(row);
}

export const save = (tx: Tx, account: Account): Promise<number> =>
  tx('users')
    .where({ id: toBytes('user', account.user.id) })
    .update(changeable(account)); // prettier-ignore

// By id, from the one after `after`.
export async function list(db: Db, limit: number, after: string | undefined): Promise<Account[]> {
  const query = db({ u: 'users' }).orderBy('u.id').limit(limit).select(ACCOUNT);
  const rows: Row[] = await (after === undefined ? query : query.where('u.id', '>', toBytes('user', after, 'pageToken')));
  return rows.map(toAccount);
}

// Whom a name to sign in with belongs to.
export async function findCredential(db: Db, name: string): Promise<Credential | undefined> {
  const wanted = signInName(name);
  if (!wanted) return undefined;
  const query = db({ u: 'users' }).join({ c: 'credentials' }, 'c.user', 'u.id').where(`u.${wanted.column}`, wanted.value);
  const row: (Row & { password_hash: string }) | undefined = await query.first([...ACCOUNT, 'c.password_hash']);
  return row && { account: toAccount(row), passwordHash: row.password_hash };
}

// As `get`; until the transaction ends the account can be neither disabled nor enabled.
export const hold = (tx: Tx, id: string): Promise<Account> => first(id, tx({ u: 'users' }).forShare());

// A statement of its own after the locks were won, so that its clock is not behind a revocation that has been committed.
export async function standing(tx: Tx, userId: string, workspaceId: string): Promise<Standing> {
  const rows: { platform_admin: number; role: string | null; now: number; revoked: number | null }[] = await tx({ u: 'users' })
    .leftJoin({ m: 'members' }, (on) => void on.on('m.user', 'u.id').andOnVal('m.workspace', toBytes('workspace', workspaceId)))
    .leftJoin({ r: 'revocations' }, (on) => void on.onVal('r.subject', userId))
    .where('u.id', toBytes('user', userId))
    .select('u.platform_admin', 'm.role', tx.raw('UNIX_TIMESTAMP() AS now'), tx.raw('UNIX_TIMESTAMP(r.issued_before) AS revoked'));
  const [row] = rows;
  if (!row) throw notFound('user', userId);
  return {
    roles: rows.flatMap(({ role }) => (role === null ? [] : [role])),
    isPlatformAdmin: row.platform_admin === 1,
    issuedAt: row.revoked === null ? row.now : Math.max(row.now, Math.floor(Number(row.revoked)) + 1),
  };
}

const changeable = ({ user, isPlatformAdmin, version }: Account) => ({
  display_name: user.displayName,
  state: user_StateToJSON(user.state),
  platform_admin: isPlatformAdmin,
  version,
  update_time: user.updateTime,
});

const toAccount = (row: Row): Account => ({ user: toUser(row), isPlatformAdmin: row.platform_admin === 1, version: row.version });
