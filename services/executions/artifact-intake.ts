// One upload of an artifact: staged as it comes, checked, kept, and then made to exist in the commit that reads its claim.
import { createHash } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import type {
  StoreArtifactRequest,
  StoreArtifactRequest_Finish,
  StoreArtifactResponse,
} from '#gen/millrace/executions/v1/artifact_intake_service.ts';
import type { Blobs, Stage } from '#platform/blob.ts';
import { Fault, invalid } from '#platform/errors.ts';
import { failpoint } from '#platform/failpoint.ts';
import { toBytes } from '#platform/id.ts';
import { counter } from '#platform/metrics.ts';
import type { ArtifactRow, Limits } from './artifact.ts';
import * as artifact from './artifact.ts';
import * as system from './artifact-system.ts';

export type Intake = (requests: AsyncIterable<StoreArtifactRequest>) => AsyncIterable<StoreArtifactResponse>;
interface Deps extends system.Rules {
  blobs: Blobs;
}

const CONFIRM_BYTES = 256 * 1024; // the sender keeps what is not confirmed
const bytesIn = counter('millrace_executions_artifact_bytes_total', 'Bytes of artifacts that were staged', []);

export function openIntake({ db, specs, blobs, limits }: Deps): Intake {
  async function drop(row: ArtifactRow): Promise<void> {
    await system.giveUp(db, row);
    await system.remove(db, blobs, row);
  }

  return async function* store(requests) {
    let upload: Upload | undefined;
    let confirmed = 0;
    try {
      for await (const { open, data, finish, giveUp } of requests) {
        if (open && !upload) {
          const begun = await system.begin({ db, specs, limits }, openingOf(open));
          if (begun.row.state === 'STORED') return yield { stored: artifact.messageOf(begun.row) };
          upload = await openUpload(await blobs.stage(artifact.keyOf(begun.row)), begun, limits);
          confirmed = upload.size();
          yield { stagedBytes: confirmed };
        } else if (data && upload) {
          await upload.add(data);
          if (upload.size() < confirmed + CONFIRM_BYTES) continue;
          confirmed = upload.size();
          yield { stagedBytes: confirmed };
        } else if (finish && upload) {
          const content = await upload.finish(finish);
          failpoint('artifact.kept');
          const stored = await system.complete(db, upload.row, content, limits);
          failpoint('artifact.committed');
          return yield { stored: artifact.messageOf(stored) };
        } else if (giveUp && upload) {
          return await drop(upload.row);
        } else throw invalid('message', upload ? 'must be data, finish or give_up' : 'must be open, as the first one');
      }
    } catch (error) {
      if (upload && isFinal(error)) await drop(upload.row);
      throw error;
    } finally {
      await upload?.close();
    }
  };
}

// It would be refused again.
const isFinal = (error: unknown): boolean => error instanceof Fault && ![status.UNAVAILABLE, status.ABORTED].includes(error.code);

const openingOf = (open: NonNullable<StoreArtifactRequest['open']>): system.Opening => ({
  id: toBytes('artifact', open.artifactId, 'open.artifact_id'),
  execution: toBytes('execution', open.executionId, 'open.execution_id'),
  claimId: open.claimId,
  name: open.name,
  contentType: open.contentType,
  days: open.retentionDays,
});

interface Upload {
  row: ArtifactRow;
  size(): number;
  add(data: Uint8Array): Promise<void>;
  finish(told: StoreArtifactRequest_Finish): Promise<system.Content>;
  close(): Promise<void>;
}

async function openUpload(stage: Stage, { row, used }: system.Begun, limits: Limits): Promise<Upload> {
  const hash = createHash('sha256');
  let size = 0;
  try {
    for await (const piece of stage.read(stage.staged)) {
      hash.update(piece);
      size += piece.length;
    }
  } catch (error) {
    await stage.close();
    throw error;
  }
  return {
    row,
    size: () => size,
    async add(data) {
      artifact.check(size + data.length, used, limits);
      await stage.write(data, size);
      failpoint('artifact.staged');
      hash.update(data);
      size += data.length;
      bytesIn.inc(data.length);
    },
    async finish(told) {
      const sha256 = hash.digest('hex');
      if (told.sizeBytes !== size) throw invalid('finish.size_bytes', `must be ${size}, which is what came`);
      if (told.sha256.toString('hex') !== sha256) throw invalid('finish.sha256', `must be that of what came, ${sha256}`);
      await stage.keep();
      return { size, sha256 };
    },
    close: () => stage.close(),
  };
}
