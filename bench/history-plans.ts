// The plans of the statements that the product really sent: taken from the server's general log, each kind once.
import type { Connection, RowDataPacket } from 'mysql2/promise';

const HISTORY = ['executions', 'results', 'attempts', 'log_chunks'];
const WHOLE = new Set(['ALL', 'index']);
const MANY = 1000; // rows
const WIDTH = 150;

interface Step extends RowDataPacket {
  table: string | null;
  type: string | null;
  key: string | null;
  rows: number | null;
  Extra: string | null;
}

// Runs the work and answers the statements that the server was sent meanwhile.
export async function sent(database: Connection, work: () => Promise<void>): Promise<string[]> {
  await database.query("SET GLOBAL log_output = 'TABLE'");
  await database.query('TRUNCATE TABLE mysql.general_log');
  await database.query('SET GLOBAL general_log = ON');
  try {
    await work();
  } finally {
    await database.query('SET GLOBAL general_log = OFF');
  }
  const sql = "SELECT CONVERT(argument USING utf8mb4) AS text FROM mysql.general_log WHERE command_type = 'Query'";
  const [rows] = await database.query<(RowDataPacket & { text: string })[]>(sql);
  const kinds = new Map<string, string>();
  for (const one of rows.flatMap(({ text }) => apart(text)).filter(isOfHistory)) kinds.set(kindOf(one), one);
  return [...kinds.values()];
}

// Several go in one packet.
const apart = (packet: string): string[] => packet.match(/(?:[^;']|'(?:[^'\\]|\\.|'')*')+/g) ?? [];

const isOfHistory = (text: string): boolean =>
  /^\s*\(?(select|update|delete)/i.test(text) &&
  HISTORY.some((table) => new RegExp(`\\b(from|join|update)\\s+\`?${table}\\b`, 'i').test(text));

// Statements that differ in values alone are one kind.
const kindOf = (text: string): string =>
  text
    .replace(/x?'(?:[^'\\]|\\.|'')*'/gi, '?')
    .replace(/\b\d+(\.\d+)?\b/g, '?')
    .replace(/\?(\s*,\s*\?)+/g, '?')
    .replace(/\s+/g, ' ')
    .trim();

// One block for each statement. `isWhole`: it reads a table of the history from end to end.
export async function plan(database: Connection, statement: string): Promise<{ text: string; isWhole: boolean } | undefined> {
  const answer = await database.query<Step[]>(`EXPLAIN ${statement}`).catch((error: { errno?: number }) => {
    if (error.errno === 1146) return undefined; // another area's
    throw error;
  });
  if (!answer) return undefined;
  const [steps] = answer;
  const isWhole = steps.some(({ type, rows }) => WHOLE.has(type ?? '') && Number(rows) > MANY);
  const lines = steps.map(
    ({ table, type, key, rows, Extra }) =>
      `    ${(table ?? '-').padEnd(12)} ${(type ?? '-').padEnd(12)} key ${(key ?? '-').padEnd(14)} rows ${String(rows ?? '-').padStart(8)}  ${Extra ?? ''}`,
  );
  return { text: [`  ${isWhole ? 'WRONG, READS THE WHOLE: ' : ''}${kindOf(statement).slice(0, WIDTH)}`, ...lines].join('\n'), isWhole };
}
