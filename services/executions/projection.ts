// What executions know of automations, as the automations area told.

import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import type { ApplyAutomationRequest_Revision } from '#gen/millrace/executions/v1/projection_service.ts';
import type { Db, Tx } from '#platform/db.ts';
import { type Concurrency, concurrencyOf } from './concurrency.ts';
import { DRIFTED, resizeSome, type Wanted } from './engine/resize.ts';
import { type Connection, format, rows } from './engine/sql.ts';
import { type Labels, labelsOf } from './selector.ts';

export interface Automation {
  id: Buffer;
  name: string;
  version: number;
  publishedRevision: number;
  disabled: boolean;
  deleted: boolean;
}

// Revisions never change, so those that come late are kept too; the automation itself is as its newest version says. Answers the lanes where
// executions may start because the limit allows more now.
export async function apply(
  db: Db,
  workspace: Buffer,
  automation: Automation,
  revisions: readonly ApplyAutomationRequest_Revision[],
): Promise<Set<number>> {
  const { id, name, version, publishedRevision, disabled, deleted } = automation;
  return db.transaction(async (tx) => {
    for (const { number, spec } of revisions) {
      const bytes = Buffer.from(AutomationSpec.encode(spec ?? AutomationSpec.fromPartial({})).finish());
      await tx.raw('INSERT INTO revisions (automation, number, spec) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE number = number', [
        id,
        number,
        bytes,
      ]);
    }
    const { concurrency, queue, selector } = await published(tx, id, publishedRevision);
    await tx.raw(
      `INSERT INTO automations (id, workspace, name, version, published_revision, disabled, deleted, concurrency, queue, selector)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON DUPLICATE KEY UPDATE ${CHANGING.map(whenNewer).join(', ')}`,
      [
        ...[id, workspace, name, version, publishedRevision, disabled, deleted],
        ...[concurrency && JSON.stringify(concurrency), queue, selector && JSON.stringify(selector)],
      ],
    );
    return resizeAll({ query: (sql) => tx.raw(sql) }, id);
  });
}

interface Published {
  concurrency: Concurrency | null;
  queue: string | null;
  selector: Labels | null;
}

async function published(tx: Tx, automation: Buffer, number: number): Promise<Published> {
  const row: { spec: Buffer } | undefined = await tx('revisions').select('spec').where({ automation, number }).first();
  if (!row) return { concurrency: null, queue: null, selector: null };
  const spec = AutomationSpec.decode(row.spec);
  return { concurrency: concurrencyOf(spec), queue: spec.queue || null, selector: labelsOf(spec.selector) };
}

// The limits that are in use get the size that is published now. One that is not published any more goes on for those who wait behind it.
async function resizeAll(connection: Connection, automation: Buffer): Promise<Set<number>> {
  const [changed] = await rows<[Wanted[]]>(connection, [`${DRIFTED}${format(' AND l.automation = ?', [automation])}`]);
  return resizeSome(connection, changed);
}

const CHANGING = ['workspace', 'name', 'published_revision', 'disabled', 'deleted', 'concurrency', 'queue', 'selector', 'version'];

// The version comes last: assignments are made from left to right.
const whenNewer = (column: string): string => `${column} = IF(VALUES(version) >= version, VALUES(${column}), ${column})`;
