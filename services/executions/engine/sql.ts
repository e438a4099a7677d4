// Statements as text, so that several go in one packet.
import mysql from 'mysql2';
import type { Clock } from './clock.ts';

export interface Connection {
  query(sql: string): Promise<unknown[]>; // a pool's connection; for knex `{ query: (sql) => tx.raw(sql) }`
}

export const format = (sql: string, values: unknown[]): string => mysql.format(sql, values as never[], false, 'Z');

// The rows of each statement of a packet.
export async function rows<T extends unknown[][]>(connection: Connection, statements: readonly string[]): Promise<T> {
  const [results] = await connection.query(statements.join(';\n'));
  return (statements.length === 1 ? [results] : results) as T;
}

// One transaction in one packet, of statements that answer no rows. An error leaves it open. MariaDB takes it as one compound statement and answers
// once; every set of rows would be sent for itself and wake this process, so the time is asked for now and then only.
export async function atOnce(connection: Connection, clock: Clock, statements: readonly string[]): Promise<void> {
  const all = clock.isDue() ? [TIME, ...statements] : statements;
  const [results] = await connection.query(
    `/*M!100101 BEGIN NOT ATOMIC */ START TRANSACTION;\n${all.join(';\n')};\nCOMMIT /*M!100101 ; END */`,
  );
  const answer = Array.isArray(results) ? (results as [{ now: Date }][]).find(Array.isArray) : undefined;
  if (answer) clock.hear(answer[0].now);
}
const TIME = 'SELECT NOW(6) AS now';

// One multi-row insert, or nothing.
export const insert = (table: string, columns: string, values: readonly unknown[][]): string[] =>
  values.length === 0 ? [] : [format(`INSERT INTO ${table} (${columns}) VALUES ?`, [values])];

export const hex = (bytes: Uint8Array): string => (Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes)).toString('hex');

// Fails with UNLIKE unless the condition holds, and what follows in the packet is left out. A transaction that has begun stays open. `where` is the
// rest of the query: what it is about, and how it locks that.
export const unless = (condition: string, where = ''): string => `SELECT ~0 + IF(${condition}, 0, 1) INTO @alike ${where}`;
export const isUnlike = (error: unknown): boolean => (error as { errno?: number }).errno === UNLIKE;
const UNLIKE = 1690; // a number out of range
