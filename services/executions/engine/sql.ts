// Statements as text, so that several go in one packet.
import mysql from 'mysql2';

export interface Connection {
  query(sql: string): Promise<unknown[]>; // a pool's connection; for knex `{ query: (sql) => tx.raw(sql) }`
}

export const format = (sql: string, values: unknown[]): string => mysql.format(sql, values as never[], false, 'Z');

// The rows of each statement of a packet.
export async function rows<T extends unknown[][]>(connection: Connection, statements: readonly string[]): Promise<T> {
  const [results] = await connection.query(statements.join(';\n'));
  return (statements.length === 1 ? [results] : results) as T;
}

// One transaction in one packet; the rows of what it selects. An error leaves it open. MariaDB takes it as one compound statement and answers once,
// where each statement for itself is an answer, and wakes this process.
export async function atOnce<T extends unknown[][]>(connection: Connection, statements: readonly string[]): Promise<T> {
  const [results] = await connection.query(
    `/*M!100101 BEGIN NOT ATOMIC */ START TRANSACTION;\n${statements.join(';\n')};\nCOMMIT /*M!100101 ; END */`,
  );
  return (results as unknown[]).filter(Array.isArray) as T;
}

// One multi-row insert, or nothing.
export const insert = (table: string, columns: string, values: readonly unknown[][]): string[] =>
  values.length === 0 ? [] : [format(`INSERT INTO ${table} (${columns}) VALUES ?`, [values])];

export const hex = (bytes: Uint8Array): string => (Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes)).toString('hex');

// Fails with UNLIKE unless the condition holds, and what follows in the packet is left out. A transaction that has begun stays open.
export const unless = (condition: string): string => `~0 + IF(${condition}, 0, 1) AS alike`;
export const isUnlike = (error: unknown): boolean => (error as { errno?: number }).errno === UNLIKE;
const UNLIKE = 1690; // a number out of range
