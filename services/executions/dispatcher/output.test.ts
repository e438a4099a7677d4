import { expect } from 'chai';
import { SessionResponse } from '#gen/millrace/runner/v1/session.ts';
import { newBytes, newId } from '#platform/id.ts';
import { until } from '../../../tests/world.ts';
import { openOutgoing } from './outgoing.ts';
import { receiveOutput } from './output.ts';
import type { Reply } from './report.ts';

const MIB = 1024 * 1024;

describe('the output of a server', () => {
  it('is not read on while 16 MiB of it wait for the database, and goes on with it', async () => {
    let sent = 0;
    const written: (() => void)[] = [];
    let isStuck = true;
    async function* stream(): AsyncGenerator<SessionResponse> {
      for (; sent < 100; sent += 1) {
        const lines = [{ seq: sent, text: 'x'.repeat(MIB), time: new Date() }];
        yield SessionResponse.fromPartial({ output: { items: [{ executionId: newId('execution'), claimId: newBytes(), lines }] } });
      }
    }
    const tell = () =>
      new Promise<Reply>((resolve) => (isStuck ? written.push(() => resolve({ kind: 'STALE' })) : resolve({ kind: 'STALE' })));
    const outgoing = openOutgoing({ dispatcherId: 'd', epoch: 1, channel: 2, serverId: 's' });
    let hasEnded = false;
    const reading = receiveOutput({ stream: stream(), outgoing, tell, heed: () => undefined, fail: () => undefined }).then(() => {
      hasEnded = true;
    });
    await until('some to wait', () => written.length >= 16);
    await new Promise((resolve) => setTimeout(resolve, 50)); // time to take more, if it did
    expect(written.length).to.be.within(15, 17);
    isStuck = false;
    for (const go of written.splice(0)) go();
    await reading;
    expect([sent, hasEnded]).to.deep.equal([100, true]);
  });
});
