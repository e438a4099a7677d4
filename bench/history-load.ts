// Puts finished executions into the history: copies of one that the product itself finished, with other ids, times, owners and states.
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { byWeek } from '../services/executions/partitions.ts';

const AT_ONCE = 20_000;
const WEEKS = 8; // that the history reaches back, as if the weeks' partitions had been made in time
const WEEK_MS = 7 * 24 * 3_600_000;
const PARTITIONED = { executions: 'id', results: 'execution', attempts: 'execution', log_chunks: 'execution' };

const WRITING_MS = 300_000;
const CLEAN = 200; // pages that are always being changed
const FEW = 1000; // of the small workspace, however many there are

// Of every ten, one failed; of every fifty, one was cancelled. Half belong to the workspace of the template, few to a small one, the rest to a
// hundred others.
const STATE = "IF(n.n % 50 = 0, 'CANCELLED', IF(n.n % 10 = 2, 'FAILED', 'SUCCEEDED'))";
const ERROR = `IF(n.n % 10 = 2, '{"type":"ValueError","message":"the amount is negative"}', NULL)`;
const owner = (column: string, every: number) =>
  `IF(n.n % ${every} = 1, s.${column}, IF(n.n % 2 = 0, t.${column}, UNHEX(MD5(CONCAT('${column}', n.n % 100)))))`;

// Before there is anything in the tables: partitions cannot be made for what is past.
export async function reachBack(database: Connection): Promise<void> {
  const past = new Date(Date.now() - WEEKS * WEEK_MS);
  for (const [table, column] of Object.entries(PARTITIONED)) await database.query(`ALTER TABLE ${table} ${byWeek(column, past)}`);
}

// `template` and `small`: finished executions of the two workspaces.
export async function load(database: Connection, count: number, template: Buffer, small: Buffer): Promise<void> {
  await number(database, count);
  // A UUIDv7 of an even spread over the weeks; the number keeps it apart from all others.
  const first = Date.now() - WEEKS * WEEK_MS;
  const ms = `(${first} + FLOOR(n.n * ${(WEEKS * WEEK_MS) / (count + 1)}))`;
  const id = `UNHEX(CONCAT(LPAD(HEX(${ms}), 12, '0'), '7', LPAD(HEX(n.n % 4096), 3, '0'), '8', LPAD(HEX(n.n), 15, '0')))`;
  const at = (seconds: number) => `FROM_UNIXTIME(${ms} / 1000) + INTERVAL ${seconds} SECOND`;
  const of = (column: string) => owner(column, Math.max(2, Math.floor(count / FEW)));
  const executions = await copying(database, 'executions', {
    ...{ id, workspace: of('workspace'), automation: of('automation'), creator: of('creator') },
    ...{ state: STATE, error: ERROR, input: `'{"amount": 12}'`, output: `IF(${STATE} = 'SUCCEEDED', '{"total": 144}', NULL)` },
    ...{ create_time: at(0), start_time: at(1), end_time: at(2) },
  });
  const attempts = await copying(database, 'attempts', {
    ...{ execution: id, state: STATE, error: ERROR, start_time: at(1), end_time: at(2), claim_id: 'UNHEX(MD5(n.n))' },
  });
  for (let from = 1; from <= count; from += AT_ONCE) {
    const range = `n.n BETWEEN ${from} AND ${Math.min(count, from + AT_ONCE - 1)}`;
    await database.query(`${executions} JOIN executions s ON s.id = ? WHERE t.id = ? AND ${range}`, [small, template]);
    await database.query(`${attempts} WHERE t.execution = ? AND ${range}`, [template]);
  }
  await database.query('DROP TABLE numbers');
  await written(database);
}

// Numbers from 1 on, in a table: the servers have no function for them in common.
async function number(database: Connection, count: number): Promise<void> {
  await database.query('CREATE TABLE numbers (n INT NOT NULL PRIMARY KEY)');
  await database.query('INSERT INTO numbers VALUES (1)');
  for (let have = 1; have < count; have *= 2)
    await database.query(`INSERT INTO numbers SELECT n + ${have} FROM numbers WHERE n + ${have} <= ${count}`);
}

// Whatever columns the table has, those that are not given are the template's.
async function copying(database: Connection, table: string, given: Record<string, string>): Promise<string> {
  const sql =
    'SELECT column_name AS name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position';
  const [rows] = await database.query<(RowDataPacket & { name: string })[]>(sql, [table]);
  const names = rows.map(({ name }) => name);
  const values = names.map((name) => given[name] ?? `t.${name}`);
  return `INSERT INTO ${table} (${names.join(', ')}) SELECT ${values.join(', ')} FROM ${table} t JOIN numbers n`;
}

// Until the server has written its pages: that work belongs to the loading.
async function written(database: Connection): Promise<void> {
  const [[before]] = await database.query<RowDataPacket[]>('SELECT @@GLOBAL.innodb_max_dirty_pages_pct AS share');
  await database.query('SET GLOBAL innodb_max_dirty_pages_pct = 0');
  const deadline = Date.now() + WRITING_MS;
  for (;;) {
    const [[status]] = await database.query<RowDataPacket[]>("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'");
    if (Number(status?.Value) < CLEAN || Date.now() > deadline) break;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  await database.query('SET GLOBAL innodb_max_dirty_pages_pct = ?', [before?.share]);
}
