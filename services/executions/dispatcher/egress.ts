// Jobs whose scripts may reach the network go out with their workspace's policy as it is now: it is asked for after the claim, so that a run
// which starts after a change was answered has the change. Without an answer they are given back, and none starts by an older policy.
import type { EgressGrantServiceService } from '#gen/millrace/automations/v1/egress_grant_service.ts';
import { Egress } from '#gen/millrace/runner/v1/egress.ts';
import type { Job } from '#gen/millrace/runner/v1/job.ts';
import type { ClientOf } from '#platform/client.ts';
import { fromBytes } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import type { Session } from './session.ts';

interface Waiting {
  session: Pick<Session, 'start' | 'giveBack'>;
  workspace: Buffer;
  job: Job;
}
interface Deps {
  automations(): Pick<ClientOf<typeof EgressGrantServiceService>, 'resolveEgressGrants'>; // made when it is needed: others do without
  log: Logger;
}

const PATIENCE_MS = 5000; // the client repeats a call to who is away meanwhile
const RETRY_MS = 1000;
const AT_ONCE = 1000; // by the contract

export function openEgress({ automations, log }: Deps): (one: Waiting) => void {
  const waiting: Waiting[] = [];

  async function send(some: readonly Waiting[]): Promise<void> {
    const ids = [...new Set(some.map(({ workspace }) => fromBytes('workspace', workspace)))];
    const { policies } = await automations().resolveEgressGrants({ workspaceIds: ids }, { deadlineMs: PATIENCE_MS });
    const known = new Map(ids.map((id, index) => [id, Egress.fromPartial(policies[index] ?? {})]));
    for (const { session, workspace, job } of some) {
      session.start([{ ...job, egress: known.get(fromBytes('workspace', workspace)) ?? Egress.fromPartial({}) }]);
    }
  }

  function flush(): void {
    for (const all = waiting.splice(0); all.length > 0; ) {
      const some = all.splice(0, AT_ONCE);
      send(some).catch(async (error) => {
        log.warn({ error, jobs: some.length }, 'where scripts may connect to cannot be had now: their executions wait');
        await pause(RETRY_MS); // they are claimed again at once
        for (const { session, job } of some) session.giveBack([job]);
      });
    }
  }

  return (one) => {
    waiting.push(one);
    if (waiting.length === 1) queueMicrotask(flush);
  };
}
