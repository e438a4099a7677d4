// ArtifactService, and ArtifactIntakeService, where automation servers bring artifacts.
import { Artifact } from '#gen/millrace/executions/v1/artifact.ts';
import type { ArtifactIntakeServiceService } from '#gen/millrace/executions/v1/artifact_intake_service.ts';
import type { ArtifactServiceService } from '#gen/millrace/executions/v1/artifact_service.ts';
import type { Blobs } from '#platform/blob.ts';
import type { Db } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import type { Call, Handlers } from '#platform/handlers.ts';
import { toBytes } from '#platform/id.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import { HTTP_CODE } from '#platform/rest.ts';
import { dispositionOf, etagOf, keyOf, messageOf, type Part, partOf } from '../artifact.ts';
import type { Intake } from '../artifact-intake.ts';
import * as store from '../artifact-store.ts';
import type { Reads } from '../reads.ts';

interface Deps {
  db: Db;
  blobs: Blobs;
  reads: Pick<Reads, 'row'>;
  remove(id: Buffer): Promise<void>; // the content of one that has vanished
}

export const handlers = ({ db, blobs, reads, remove }: Deps): Handlers<ArtifactServiceService> => {
  async function find(id: string, { caller }: Call): Promise<Artifact> {
    const row = await store.get(db, toBytes('workspace', caller.workspace), toBytes('artifact', id));
    if (!row) throw notFound('artifact', id);
    return messageOf(row);
  }

  return {
    async listArtifacts({ pageSize: asked, pageToken, ...query }, { caller }) {
      const execution = toBytes('execution', query.executionId, 'execution_id');
      await reads.row(caller.workspace, query.executionId);
      const after = decodePage<string>(pageToken, query);
      const size = pageSize(asked);
      const rows = await store.list(db, toBytes('workspace', caller.workspace), {
        execution,
        attempt: query.attempt,
        after: after === undefined ? undefined : toBytes('artifact', after, 'page_token'),
        limit: size + 1,
      });
      const { items, last } = cutPage(rows.map(messageOf), size, Artifact);
      return { artifacts: items, nextPageToken: last ? encodePage(query, last.id) : '' };
    },

    getArtifact: ({ id }, call) => find(id, call),

    async *downloadArtifact({ id, offset, length }, call) {
      const found = await find(id, call);
      const header = (name: string) => call.metadata.get(name)[0]?.toString();
      const part = partOf(found, { offset, length }, { range: header('range'), ifRange: header('if-range') });
      const pieces = await blobs.read(keyOf({ id: toBytes('artifact', id) }), part.from, part.length);
      tell(call, found, part);
      let contentType = found.contentType;
      for await (const data of pieces) {
        yield { contentType, data, extensions: [] };
        contentType = '';
      }
      if (contentType) yield { contentType, data: Buffer.alloc(0), extensions: [] };
    },

    async deleteArtifact({ id }, call) {
      const key = toBytes('artifact', id);
      if (!(await store.vanish(db, toBytes('workspace', call.caller.workspace), key))) throw notFound('artifact', id);
      await remove(key).catch((error) => call.log.warn({ error, id }, 'the content of an artifact is removed later'));
      return {};
    },
  };
};

export const intakeHandlers = (intake: Intake): Handlers<ArtifactIntakeServiceService> => ({
  storeArtifact: (requests) => intake(requests),
});

function tell({ respond }: Call, { name, sha256, sizeBytes }: Artifact, { from, length, isAll }: Part): void {
  respond.set('content-disposition', dispositionOf(name));
  respond.set('accept-ranges', 'bytes');
  respond.set('etag', etagOf(sha256));
  respond.set('repr-digest', `sha-256=:${Buffer.from(sha256, 'hex').toString('base64')}:`);
  if (isAll) return;
  respond.set(HTTP_CODE, '206');
  respond.set('content-range', `bytes ${from}-${from + length - 1}/${sizeBytes}`);
}
