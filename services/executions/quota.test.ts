import { expect } from 'chai';
import { Fault } from '#platform/errors.ts';
import { openQuota } from './quota.ts';

const ADA = Buffer.alloc(16, 1); // a workspace

describe('how many executions may wait', () => {
  let now: number;
  let waiting: number; // in the database
  let counts: number;
  let admit: (workspace?: Buffer) => Promise<void>;
  beforeEach(() => {
    now = 0;
    waiting = 0;
    counts = 0;
    const count = async () => {
      counts += 1;
      return waiting;
    };
    const quota = openQuota({ max: 10, count, now: () => now });
    admit = async (workspace = ADA) => {
      await quota(workspace);
      waiting += 1;
    };
  });
  const outcome = (workspace?: Buffer): Promise<string> =>
    admit(workspace).then(
      () => 'admitted',
      (error: unknown) => (error instanceof Fault ? error.reason : String(error)),
    );
  const outcomes = async (times: number): Promise<string[]> => {
    const all: string[] = [];
    for (let i = 0; i < times; i += 1) all.push(await outcome());
    return all;
  };
  const refused = (all: readonly string[]) => all.filter((one) => one === 'QUEUE_FULL').length;

  it('is exact for one process, with one count for many', async () => {
    expect(refused(await outcomes(12))).to.equal(2);
    expect(waiting).to.equal(10);
    expect(counts).to.equal(1);
  });

  it('counts what others made wait before, and keeps workspaces apart', async () => {
    waiting = 8;
    expect(refused(await outcomes(4))).to.equal(2);
    waiting = 0;
    expect(await outcome(Buffer.alloc(16, 2))).to.equal('admitted');
  });

  it('counts again before it refuses, but not for every refusal', async () => {
    await outcomes(10);
    now = 300;
    waiting = 4; // some have run
    expect(refused(await outcomes(8))).to.equal(2);
    expect(counts).to.equal(2);
    waiting = 0;
    now = 500; // too soon
    expect(await outcome()).to.equal('QUEUE_FULL');
    now = 600;
    expect(await outcome()).to.equal('admitted');
    expect(counts).to.equal(3);
  });

  it('is seen to be full by others within some seconds', async () => {
    await outcomes(1);
    waiting = 10; // another process let nine come
    expect(await outcome()).to.equal('admitted');
    now = 6000;
    await outcome(); // counts again, beside it
    expect(await outcome()).to.equal('QUEUE_FULL');
  });

  it('is what it was when the count fails, and says so only to those who need one', async () => {
    const quota = openQuota({
      max: 2,
      now: () => now,
      count: async () => {
        counts += 1;
        if (counts > 1) throw new Error('the database is away');
        return 0;
      },
    });
    await quota(ADA);
    now = 6000;
    await quota(ADA);
    now = 7000;
    const error = await quota(ADA).catch((one: Error) => one.message);
    expect(error).to.equal('the database is away');
  });
});
