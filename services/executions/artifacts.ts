// The part of the module that keeps artifacts: its settings, its services, and the sweep.
import { ArtifactIntakeServiceService } from '#gen/millrace/executions/v1/artifact_intake_service.ts';
import { ArtifactServiceService } from '#gen/millrace/executions/v1/artifact_service.ts';
import { blobRules, blobSettings, openBlobs } from '#platform/blob.ts';
import { integer, setting } from '#platform/config.ts';
import type { Pool } from '#platform/db.ts';
import type { Platform } from '#platform/module.ts';
import { every } from '#platform/pause.ts';
import { openIntake } from './artifact-intake.ts';
import { remove, sweep } from './artifact-system.ts';
import { openSpecs } from './engine/specs.ts';
import { handlers, intakeHandlers } from './handlers/artifacts.ts';
import type { Reads } from './reads.ts';

const MIB = 1024 * 1024;

const settings = {
  ...blobSettings,
  mib: setting('MILLRACE_EXECUTIONS_ARTIFACT_MIB', integer(100, 1, 2000), 'the most MiB of one artifact'),
  attemptMib: setting('MILLRACE_EXECUTIONS_ARTIFACT_ATTEMPT_MIB', integer(512, 1, 100_000), 'the most MiB of all artifacts of an attempt'),
  workspaceMib: setting(
    'MILLRACE_EXECUTIONS_ARTIFACT_WORKSPACE_MIB',
    integer(10_240, 1, 100_000_000),
    'the most MiB of all artifacts of a workspace',
  ),
  count: setting('MILLRACE_EXECUTIONS_ARTIFACT_COUNT', integer(100, 1, 10_000), 'the most artifacts of an execution'),
  days: setting(
    'MILLRACE_EXECUTIONS_ARTIFACT_DAYS',
    integer(30, 1, 3650),
    'how many days an artifact is kept, unless its script says less',
  ),
  sweepMs: setting(
    'MILLRACE_EXECUTIONS_ARTIFACT_SWEEP_MS',
    integer(60_000, 100, 3_600_000),
    'how often artifacts that have expired or were given up are removed, in milliseconds',
  ),
};

interface Deps extends Pick<Platform, 'db' | 'log' | 'serve' | 'check'> {
  read: Platform['settings'];
  pool: Pool;
  reads: Reads;
}

// Answers what stops it.
export function startArtifacts({ db, log, serve, check, read, pool, reads }: Deps): () => Promise<void> {
  const { mib, attemptMib, workspaceMib, count, days, sweepMs, ...where } = read(settings, blobRules);
  const blobs = openBlobs(where);
  const limits = { bytes: mib * MIB, attemptBytes: attemptMib * MIB, workspaceBytes: workspaceMib * MIB, count, days };
  serve(ArtifactServiceService, handlers({ db, blobs, reads, remove: (id) => remove(db, blobs, { id }) }));
  serve(ArtifactIntakeServiceService, intakeHandlers(openIntake({ db, specs: openSpecs(pool), blobs, limits })));
  if (!where.blobFolder) return async () => undefined;
  check('artifacts', blobs.probe);
  return every(sweepMs, () => sweep({ db, pool, blobs }), log);
}
