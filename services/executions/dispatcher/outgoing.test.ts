import { expect } from 'chai';
import { Job } from '#gen/millrace/runner/v1/job.ts';
import { SessionOpen } from '#gen/millrace/runner/v1/session.ts';
import { newBytes } from '#platform/id.ts';
import { openOutgoing } from './outgoing.ts';

describe('what a stream of a session sends', () => {
  it('is a job before the word that it is to stop', async () => {
    const outgoing = openOutgoing(SessionOpen.fromPartial({}));
    const claimId = newBytes();
    outgoing.cancel([claimId]);
    outgoing.drop([claimId]);
    outgoing.start([Job.fromPartial({ claimId })]);
    const kinds: string[] = [];
    for await (const message of outgoing) {
      kinds.push(...(['open', 'start', 'cancel', 'drop'] as const).filter((kind) => message[kind]));
      if (kinds.length === 4) outgoing.close();
    }
    expect(kinds).to.deep.equal(['open', 'start', 'cancel', 'drop']);
  });
});
