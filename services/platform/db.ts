// The database: one schema for each area, knex for everything but the hot paths, which use raw connections with several statements in a packet.
import knexModule, { type Knex } from 'knex';
import { createPool, type Pool } from 'mysql2/promise';
import type { Config } from './config.ts';

export type { Knex } from 'knex';
export type { Pool, PoolConnection, ResultSetHeader, RowDataPacket } from 'mysql2/promise';
export type Db = Knex;
export type Tx = Knex.Transaction;

// Isolation, clock and strictness of every connection.
const SESSION = [
  'SET NAMES utf8mb4 COLLATE utf8mb4_unicode_520_ci; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED',
  "time_zone = '+00:00'",
  "sql_mode = 'STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
  'innodb_lock_wait_timeout = 5',
];
export const SESSION_SQL = `${SESSION[0]}; SET SESSION ${SESSION.slice(1).join(', ')}`;

type Settings = Pick<Config, 'databaseUrl' | 'databasePrefix' | 'databaseConnections'>;

export const schemaOf = (config: Pick<Config, 'databasePrefix'>, area: string): string => `${config.databasePrefix}_${area}`;

export function connectionOf(config: Pick<Config, 'databaseUrl'>) {
  const url = new URL(config.databaseUrl);
  const socketPath = url.searchParams.get('socketPath');
  return {
    ...(socketPath ? { socketPath } : { host: url.hostname, port: Number(url.port || 3306) }),
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    charset: 'utf8mb4',
    timezone: 'Z',
    multipleStatements: true,
    supportBigNumbers: true,
    enableKeepAlive: true,
    connectTimeout: 5000,
  };
}

export function openKnex(config: Settings, schema: string | undefined, max = config.databaseConnections): Knex {
  return knexModule({
    client: 'mysql2',
    connection: { ...connectionOf(config), ...(schema ? { database: schema } : {}) },
    acquireConnectionTimeout: 5000,
    pool: {
      min: 0,
      max,
      afterCreate(
        connection: { query(sql: string, done: (error: Error | null) => void): void },
        done: (error: Error | null, connection: unknown) => void,
      ) {
        connection.query(SESSION_SQL, (error) => done(error, connection));
      },
    },
  });
}

// Raw connections for hot paths: without the stack of whoever asked, which each statement would pay for. Each is set up before its first use.
export function openPool(config: Settings, schema: string, connections: number): Pool {
  const pool = createPool({ ...connectionOf(config), database: schema, connectionLimit: connections, maxIdle: connections, trace: false });
  pool.pool.on('connection', (connection) => connection.query(SESSION_SQL)); // queued before whatever the borrower sends
  return pool;
}
