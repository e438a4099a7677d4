// handlers/environments.ts: the methods of EnvironmentService, in the contract's order.
import { Environment } from '#gen/millrace/automations/v1/environment.ts';
import type { EnvironmentServiceService, WatchEnvironmentBuildResponse } from '#gen/millrace/automations/v1/environment_service.ts';
import type { RunnerServiceService } from '#gen/millrace/runner/v1/runner_service.ts';
import type { ClientOf } from '#platform/client.ts';
import type { Db } from '#platform/db.ts';
import { Fault, unavailable } from '#platform/errors.ts';
import { faultOf } from '#platform/faults.ts';
import type { Handlers } from '#platform/handlers.ts';
import { newId } from '#platform/id.ts';
import { claimKey } from '#platform/idempotency.ts';
import type { Logger } from '#platform/log.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import { withKeepAlive } from '#platform/stream.ts';
import { faults } from '../automation.ts';
import * as environments from '../environment.ts';
import type { Builds } from '../environment-builds.ts';
import * as store from '../store/environments.ts';

export interface Deps {
  db: Db;
  log: Logger;
  clock: () => Date;
  builds: Builds;
  runner: Pick<ClientOf<RunnerServiceService>, 'describeRunner'>;
}

const KEEP_ALIVE_MS = 15_000;

export const environmentHandlers = (deps: Deps): Handlers<EnvironmentServiceService> => ({
  async createEnvironment({ environment: draft = Environment.fromPartial({}) }, call) {
    const { workspace, user } = call.caller;
    const accepted = environments.accept(draft);
    const platform = await platformOf(deps);
    const digest = environments.digestOf(accepted.normal, platform);
    const made = { ...accepted, id: newId('environment'), digest, platform, creatorId: user, createTime: deps.clock() };
    const id = await deps.db.transaction(async (tx) => {
      const earlier = await claimKey(tx, call, made.id);
      if (!earlier) await store.insert(tx, workspace, made);
      return earlier ?? made.id;
    });
    deps.builds.queued();
    return store.get(deps.db, workspace, id);
  },

  async getEnvironment({ id }, { caller }) {
    return store.get(deps.db, caller.workspace, id);
  },

  async listEnvironments({ name, pageSize: asked, pageToken }, { caller }) {
    const query = { name };
    const size = pageSize(asked);
    const found = await store.list(deps.db, caller.workspace, name, decodePage<string>(pageToken, query), size + 1);
    const { items, last } = cutPage(found, size, Environment);
    return { environments: items, nextPageToken: last ? encodePage(query, last.id) : '' };
  },

  async deleteEnvironment({ id }, { caller }) {
    await store.remove(deps.db, caller.workspace, id);
    return {};
  },

  async retryEnvironmentBuild({ id }, { caller }) {
    const { digest } = await store.get(deps.db, caller.workspace, id);
    await store.requeue(deps.db, digest);
    const queued = await store.get(deps.db, caller.workspace, id); // before a builder hears of it and goes on
    deps.builds.queued();
    return queued;
  },

  async *watchEnvironmentBuild({ id, cursor }, { caller, signal }) {
    const { digest } = await store.get(deps.db, caller.workspace, id);
    const from = cursor === '' ? 0 : await after(deps.builds, digest, cursor);
    yield* withKeepAlive(frames(deps, caller.workspace, id, digest, from, signal), KEEP_ALIVE_MS, () => ({ keepAlive: {} }), signal);
  },
});

async function* frames(
  { db, log, builds }: Deps,
  workspace: string,
  id: string,
  digest: string,
  from: number,
  signal: AbortSignal,
): AsyncGenerator<WatchEnvironmentBuildResponse> {
  try {
    for await (const line of builds.follow(digest, from, signal)) yield { line: { ...line, cursor: cursorOf(line.seq) } };
    if (!signal.aborted) yield { end: { environment: await store.get(db, workspace, id), code: 0, message: '' } };
    else if (signal.reason instanceof Fault) throw signal.reason; // the server stops
  } catch (error) {
    if (!(error instanceof Fault)) log.warn({ error, id }, 'a stream broke off');
    const { code, message } = faultOf(error);
    yield { end: { environment: undefined, code, message } };
  }
}

const cursorOf = (seq: number): string => `l${seq}`;

async function after(builds: Builds, digest: string, cursor: string): Promise<number> {
  const [, seq] = /^l(\d{1,9})$/.exec(cursor) ?? [];
  if (seq !== undefined && (await builds.has(digest, Number(seq)))) return Number(seq) + 1;
  throw faults.invalid('CURSOR_INVALID', 'the cursor is not one of this build: send the cursor of a line, or none to start over', [
    { field: 'cursor', description: 'must be the cursor of a line of this build' },
  ]);
}

// What libraries are chosen by. An older server does not tell it.
async function platformOf({ runner }: Deps): Promise<string> {
  const described = await runner.describeRunner({}).catch((error) => {
    throw unavailable('no automation server can tell the platform to build for now', 1000, error);
  });
  if (!described.platform) throw unavailable('the automation server does not tell its platform: bring it up to date', 1000);
  return described.platform;
}
