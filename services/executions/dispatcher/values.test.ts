import { expect } from 'chai';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import {
  ResolveValuesResponse_Problem_Reason as Reason,
  type ResolveValuesRequest,
  ResolveValuesResponse,
} from '#gen/millrace/automations/v1/value_service.ts';
import { Job } from '#gen/millrace/runner/v1/job.ts';
import { unavailable } from '#platform/errors.ts';
import { newBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { until } from '../../../tests/world.ts';
import type { Claimed } from '../engine/claims.ts';
import { namesValues } from '../engine/specs.ts';
import { failureOf, openValues } from './values.ts';

describe('the values of jobs', () => {
  const workspace = newBytes();
  const [automation, creator] = [newBytes(), newBytes()];
  const spec = AutomationSpec.fromPartial({ secrets: Array.from({ length: 32 }, (_, index) => `S${index}`) });
  const claimed = (who = creator) => ({ workspace, row: { automation, revision: 1, creator: who } }) as Claimed;
  const answer = ({ items }: ResolveValuesRequest) =>
    ResolveValuesResponse.fromPartial({
      items: items.map(({ secrets }) => ({ secrets: secrets.map((name) => ({ name, value: 'x'.repeat(16_384), version: '1' })) })),
    });

  function open(resolveValues: (request: ResolveValuesRequest) => Promise<ResolveValuesResponse>) {
    const started: Job[] = [];
    const given: Job[] = [];
    const session = { fail: () => expect.fail('nothing is missing'), giveBack: (jobs: readonly Job[]) => void given.push(...jobs) };
    const add = openValues({ automations: () => ({ resolveValues }), log: openLog('silent') });
    const put = (who?: Buffer) =>
      add({ session, claimed: claimed(who), spec, job: Job.fromPartial({ source: 'pass' }), start: (job) => started.push(job) });
    return { started, given, put };
  }

  it('are asked for once for all that ask alike, and in answers that fit into a message', async () => {
    const asked: number[] = [];
    const { started, put } = open(async (request) => {
      asked.push(request.items.length);
      expect(ResolveValuesResponse.encode(answer(request)).finish().length).to.be.below(4 * 1024 * 1024);
      return answer(request);
    });
    for (let count = 0; count < 4; count += 1) put();
    await until('all to start', () => started.length === 4);
    expect(asked).to.deep.equal([1]);
    for (let count = 0; count < 20; count += 1) put(newBytes());
    await until('all to start', () => started.length === 24);
    expect(asked.slice(1)).to.deep.equal([4, 4, 4, 4, 4]);
  });

  it('let jobs wait while nobody answers', async () => {
    const { started, given, put } = open(async () => {
      throw unavailable('away');
    });
    put();
    await until('it to be given back', () => given.length === 1);
    expect(started).to.have.length(0);
  });

  it('that are not there make failures of a type that says whether another attempt can help', () => {
    const { MISSING, NOT_ALLOWED, UNREADABLE } = Reason;
    const of = (...problems: [kind: string, reason: Reason][]) =>
      failureOf(problems.map(([kind, reason], index) => ({ kind, name: `N${index}`, reason }))).errorType;
    expect([of(['secret', MISSING]), of(['variable', MISSING], ['secret', NOT_ALLOWED])]).to.deep.equal(Array(2).fill('SecretUnavailable'));
    expect([of(['variable', MISSING]), of(['variable', MISSING], ['secret', UNREADABLE])]).to.deep.equal(
      Array(2).fill('VariableUnavailable'),
    );
    expect(of(['secret', UNREADABLE])).to.equal('SecretUnreadable');
  });

  it('are not asked for by those that name none', () => {
    expect([namesValues(spec), namesValues(AutomationSpec.fromPartial({}))]).to.deep.equal([true, false]);
  });
});
