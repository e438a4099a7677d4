// Changes of tables that may be run again. Common subset of MySQL and MariaDB: neither says IF NOT EXISTS in the same way.
import type { Knex } from 'knex';

// Runs the statement unless the table has the column.
export async function unlessColumn(knex: Knex, table: string, column: string, statement: string): Promise<void> {
  if (!(await knex.schema.hasColumn(table, column))) await knex.raw(statement);
}

export async function ifColumn(knex: Knex, table: string, column: string, statement: string): Promise<void> {
  if (await knex.schema.hasColumn(table, column)) await knex.raw(statement);
}
