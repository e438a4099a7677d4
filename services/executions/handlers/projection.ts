// ProjectionService: keeps what executions must know of automations.
import type { ProjectionServiceService } from '#gen/millrace/executions/v1/projection_service.ts';
import type { Db } from '#platform/db.ts';
import { invalid } from '#platform/errors.ts';
import type { Handlers } from '#platform/handlers.ts';
import { toBytes } from '#platform/id.ts';
import * as projection from '../projection.ts';

export const handlers = ({ db, ring }: { db: Db; ring(lanes: ReadonlySet<number>): void }): Handlers<ProjectionServiceService> => ({
  async applyAutomation({ automationId, workspaceId, revisions, ...automation }) {
    const id = toBytes('automation', automationId, 'automation_id');
    const workspace = toBytes('workspace', workspaceId, 'workspace_id');
    if (revisions.some(({ spec }) => !spec)) throw invalid('revisions', 'must each have a spec');
    ring(await projection.apply(db, workspace, { ...automation, id }, revisions));
    return {};
  },
});
