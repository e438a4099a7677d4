// What executions know of automations, as the automations area told.

import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import type { ApplyAutomationRequest_Revision } from '#gen/millrace/executions/v1/projection_service.ts';
import type { Db } from '#platform/db.ts';

export interface Automation {
  id: Buffer;
  name: string;
  version: number;
  publishedRevision: number;
  disabled: boolean;
  deleted: boolean;
}

// Revisions never change, so those that come late are kept too; the automation itself is as its newest version says.
export async function apply(
  db: Db,
  workspace: Buffer,
  automation: Automation,
  revisions: readonly ApplyAutomationRequest_Revision[],
): Promise<void> {
  const { id, name, version, publishedRevision, disabled, deleted } = automation;
  await db.transaction(async (tx) => {
    for (const { number, spec } of revisions) {
      const bytes = Buffer.from(AutomationSpec.encode(spec ?? AutomationSpec.fromPartial({})).finish());
      await tx.raw('INSERT INTO revisions (automation, number, spec) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE number = number', [
        id,
        number,
        bytes,
      ]);
    }
    await tx.raw(
      `INSERT INTO automations (id, workspace, name, version, published_revision, disabled, deleted) VALUES (?, ?, ?, ?, ?, ?, ?)
       ON DUPLICATE KEY UPDATE ${['workspace', 'name', 'published_revision', 'disabled', 'deleted', 'version'].map(whenNewer).join(', ')}`,
      [id, workspace, name, version, publishedRevision, disabled, deleted],
    );
  });
}

// The version comes last: assignments are made from left to right.
const whenNewer = (column: string): string => `${column} = IF(VALUES(version) >= version, VALUES(${column}), ${column})`;
