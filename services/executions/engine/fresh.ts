// What was accepted just now and may start at once, as its notice tells it: a dispatcher that is idle claims it without reading it first. Only
// what is plain is told so: first attempts without a limit.
export interface Fresh {
  lane: number;
  priority: number;
  tag: number;
  execution: Buffer;
  workspace: Buffer;
  automation: Buffer;
  revision: number;
  creator: Buffer;
  retry_of: Buffer | null;
  labels: Record<string, string> | null;
  input: string | null;
  traceparent: string | null;
  create_time: Date;
}

const MOST_CHARACTERS = 64 * 1024; // whoever reads more from the database saves more than he loses

export const fitsNotice = (rows: readonly Fresh[]): boolean =>
  rows.reduce((sum, { input }) => sum + (input?.length ?? 0), 0) <= MOST_CHARACTERS;

// Undefined when that is too much for a notice.
export function encodeFresh(rows: readonly Fresh[]): string | undefined {
  if (!fitsNotice(rows)) return undefined;
  return JSON.stringify(rows.map((row) => Object.values(plain(row))));
}

const plain = ({ execution, workspace, automation, creator, retry_of, create_time, ...rest }: Fresh) => ({
  ids: [execution, workspace, automation, creator, ...(retry_of ? [retry_of] : [])].map((id) => id.toString('hex')).join(' '),
  create_time: create_time.getTime(),
  row: rest,
});

export const decodeFresh = (text: string): Fresh[] =>
  (
    JSON.parse(text) as [string, number, Omit<Fresh, 'execution' | 'workspace' | 'automation' | 'creator' | 'retry_of' | 'create_time'>][]
  ).map(([ids, time, row]) => {
    const [execution, workspace, automation, creator, again] = ids.split(' ').map((id) => Buffer.from(id, 'hex'));
    if (!execution || !workspace || !automation || !creator) throw new Error('a notice of what was accepted lacks an id');
    return { ...row, execution, workspace, automation, creator, retry_of: again ?? null, create_time: new Date(time) };
  });
