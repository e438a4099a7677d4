// columns.ts: migrations that change a table, so that one which was cut off can run again.
import type { Knex } from 'knex';

export const unlessColumn = async (knex: Knex, table: string, column: string, statement: string): Promise<void> => {
  if (!(await knex.schema.hasColumn(table, column))) await knex.raw(statement);
};

export const ifColumn = async (knex: Knex, table: string, column: string, statement: string): Promise<void> => {
  if (await knex.schema.hasColumn(table, column)) await knex.raw(statement);
};
