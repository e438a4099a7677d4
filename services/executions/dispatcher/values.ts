// Jobs whose revision names secrets or variables go out with their values as they are now, asked for after the claim: only here and in the
// server's memory do they stand readable, never in the database. Without all of them an attempt fails before its script starts; without an
// answer the job is given back and waits.
import { createHash } from 'node:crypto';
import type { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import {
  type ResolveValuesResponse_Item as Answer,
  ResolveValuesRequest_Item as Item,
  type ResolveValuesResponse_Problem as Problem,
  ResolveValuesResponse_Problem_Reason as Reason,
  type ValueServiceService,
} from '#gen/millrace/automations/v1/value_service.ts';
import { type Job, Result, Result_Outcome } from '#gen/millrace/runner/v1/job.ts';
import type { ClientOf } from '#platform/client.ts';
import { fromBytes } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import type { Claimed } from '../engine/claims.ts';
import type { Session } from './session.ts';

interface Waiting {
  session: Pick<Session, 'fail' | 'giveBack'>;
  claimed: Claimed;
  spec: AutomationSpec;
  job: Job;
  start(job: Job): void;
}
interface Deps {
  automations(): Pick<ClientOf<typeof ValueServiceService>, 'resolveValues'>; // made when it is needed: others do without
  log: Logger;
}

const PATIENCE_MS = 5000; // the client repeats a call to who is away meanwhile
const RETRY_MS = 1000;
const AT_ONCE = 100; // by the contract
const NAMES_AT_ONCE = 128; // values have up to 16 KiB each, and an answer up to 4 MiB

export function openValues({ automations, log }: Deps): (one: Waiting) => void {
  const waiting: Waiting[] = [];

  // What several executions ask for alike is asked for once.
  async function send(some: readonly Waiting[]): Promise<void> {
    const items = new Map(some.map((one) => [keyOf(one), itemOf(one)]));
    const answers = (await automations().resolveValues({ items: [...items.values()] }, { deadlineMs: PATIENCE_MS })).items;
    const known = new Map([...items.keys()].map((key, index) => [key, answers[index]]));
    for (const one of some) {
      const answer = known.get(keyOf(one));
      if (!answer) throw new Error('the answer leaves an execution out');
      if (answer.problems.length > 0) one.session.fail(one.job, failureOf(answer.problems));
      else one.start(withValues(one.job, answer));
    }
  }

  function flush(): void {
    for (const all = waiting.splice(0); all.length > 0; ) {
      const some = all.splice(0, fitting(all));
      send(some).catch(async (error) => {
        log.warn({ error, jobs: some.length }, 'secrets and variables cannot be had now: the executions that name them wait');
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

const keyOf = ({ claimed: { row } }: Waiting): string => `${row.automation.toString('hex')}.${row.revision}.${row.creator.toString('hex')}`;

const itemOf = ({ claimed, spec }: Waiting): Item =>
  Item.fromPartial({
    workspaceId: fromBytes('workspace', claimed.workspace),
    automationId: fromBytes('automation', claimed.row.automation),
    userId: fromBytes('user', claimed.row.creator),
    secrets: spec.secrets,
    variables: spec.variables,
  });

function fitting(all: readonly Waiting[]): number {
  let names = 0;
  const more = all.findIndex(({ spec }, index) => {
    names += spec.secrets.length + spec.variables.length;
    return index > 0 && (index === AT_ONCE || names > NAMES_AT_ONCE);
  });
  return more < 0 ? all.length : more;
}

// A process that is kept has read these very values: another version of one is another key.
function withValues(job: Job, { secrets, variables }: Answer): Job {
  const versions = createHash('sha256');
  for (const { name, version } of [...secrets, ...variables]) versions.update(`${name} ${version}\n`);
  return {
    ...job,
    reuseKey: `${job.reuseKey}.${versions.digest('hex').slice(0, 32)}`,
    secrets: secrets.map(({ name, value }) => ({ name, value })),
    variables: variables.map(({ name, valueJson }) => ({ name, valueJson })),
  };
}

export const failureOf = (problems: readonly Problem[]): Result =>
  Result.fromPartial({
    outcome: Result_Outcome.FAILED,
    errorType: typeOf(problems),
    errorMessage: `It was not started. ${problems.map(sentenceOf).join(' ')}`,
    time: new Date(),
    logSha256: createHash('sha256').digest('hex'),
  });

// What cannot be decrypted may be so only in one of several processes, or until the next restart: the retry policy decides.
function typeOf(problems: readonly Problem[]): string {
  const others = problems.filter(({ reason }) => reason !== Reason.UNREADABLE);
  if (others.length === 0) return 'SecretUnreadable';
  return others.some(({ kind }) => kind === 'secret') ? 'SecretUnavailable' : 'VariableUnavailable';
}

function sentenceOf({ kind, name, reason }: Problem): string {
  if (reason === Reason.NOT_ALLOWED) return `The ${kind} ${name} may not be used by this automation for this user.`;
  if (reason === Reason.UNREADABLE) return `The ${kind} ${name} cannot be decrypted: whoever runs the installation finds why in its log.`;
  return `The workspace has no ${kind} ${name}.`;
}
