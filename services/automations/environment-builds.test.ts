import { createHash, randomBytes } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { Environment_State } from '#gen/millrace/automations/v1/environment.ts';
import {
  type ClaimEnvironmentBuildResponse,
  EnvironmentBuildServiceService,
} from '#gen/millrace/automations/v1/environment_build_service.ts';
import { EnvironmentServiceService, type WatchEnvironmentBuildResponse } from '#gen/millrace/automations/v1/environment_service.ts';
import type { ClientOf } from '#platform/client.ts';
import { newId } from '#platform/id.ts';
import { refused } from '../../tests/refusal.ts';
import { type Person, startWorld, until, type World } from '../../tests/world.ts';
import { module } from './module.ts';
import * as store from './store/environments.ts';

// The test is the builder, through the wire; the real one is tested in tests/e2e.
describe('builds of environments', function () {
  this.timeout(30_000);
  let world: World;
  let person: Person;
  let builder: ClientOf<EnvironmentBuildServiceService>;
  let service: ClientOf<EnvironmentServiceService>;

  before(async () => {
    const nowhere = '127.0.0.1:1';
    world = await startWorld({
      targets: ['automations'],
      modules: [module],
      env: { MILLRACE_EXECUTIONS_URL: nowhere, MILLRACE_RUNNER_URL: nowhere },
    });
    builder = world.asService('builder', EnvironmentBuildServiceService);
    person = world.person();
    service = world.as(person, EnvironmentServiceService);
  });
  after(() => world?.stop());

  // A new one for a platform of its own, so that no other test takes its build.
  async function make(
    platform = `p${randomBytes(4).toString('hex')}`,
    by = person,
  ): Promise<{ id: string; platform: string; digest: Buffer }> {
    const digest = createHash('sha256').update(platform).digest();
    const id = newId('environment');
    const normal = `six==1.0 --hash=sha256:${'a'.repeat(64)}`;
    const made = {
      id,
      name: 'data',
      requirements: `# one\n${normal}`,
      normal,
      digest,
      platform,
      creatorId: by.user,
      createTime: new Date(),
    };
    await world.db('automations').transaction((tx) => store.insert(tx, by.workspace, made));
    return { id, platform, digest };
  }
  const claim = (platform: string) => builder.claimEnvironmentBuild({ builderId: 'b', platform });
  const tell = ({ digest, epoch }: ClaimEnvironmentBuildResponse, firstLine: number, ...lines: string[]) =>
    builder.tellEnvironmentBuild({ digest, epoch, firstLine, lines });
  const end = ({ digest, epoch }: ClaimEnvironmentBuildResponse, error = '', problems: { requirement: number; message: string }[] = []) =>
    builder.endEnvironmentBuild({ digest, epoch, error, problems, packages: ['six==1.0'], sizeKib: 7 });
  const lose = (digest: Buffer) =>
    world
      .db('automations')('environment_builds')
      .where({ digest })
      .update({ lease_time: new Date(0) });
  const get = (id: string) => service.getEnvironment({ id });
  const stale = { code: status.ABORTED, reason: 'CONFLICT' };

  async function watch(id: string, cursor = ''): Promise<WatchEnvironmentBuildResponse[]> {
    const frames = [];
    for await (const frame of service.watchEnvironmentBuild({ id, cursor })) if (!frame.keepAlive) frames.push(frame);
    return frames;
  }
  const textsOf = (frames: readonly WatchEnvironmentBuildResponse[]) =>
    frames.flatMap(({ line }) => (line ? [`${line.seq} ${line.text}`] : []));

  it('are given to one builder each, and only to one for their platform', async () => {
    const { platform } = await make();
    const both = await Promise.allSettled(
      [1, 2].map(() => builder.claimEnvironmentBuild({ builderId: 'b', platform }, { deadlineMs: 1500 })),
    );
    expect(both.map((one) => one.status).sort()).to.deep.equal(['fulfilled', 'rejected']);
    const other = await make();
    const elsewhere = builder.claimEnvironmentBuild({ builderId: 'b', platform: `${other.platform}x` }, { deadlineMs: 300 });
    expect((await refused(elsewhere)).code).to.equal(status.DEADLINE_EXCEEDED);
    expect((await claim(other.platform)).epoch).to.equal(1);
  });

  it('are made once for all who ask', async () => {
    const one = await make();
    const other = world.person();
    const same = await make(one.platform, other);
    const claimed = await claim(one.platform);
    await end(claimed);
    expect((await get(one.id)).state).to.equal(Environment_State.READY);
    expect(await world.as(other, EnvironmentServiceService).getEnvironment({ id: same.id })).to.deep.include({
      state: Environment_State.READY,
      sizeKib: 7,
    });
    expect((await refused(service.getEnvironment({ id: same.id }))).code).to.equal(status.NOT_FOUND);
  });

  it('show each line once, live, in order, and again later from any of them', async () => {
    const { id, platform } = await make();
    const claimed = await claim(platform);
    const live = watch(id);
    await tell(claimed, 0, 'one', 'two');
    await tell(claimed, 0, 'one', 'two', 'three'); // told again, for an answer that was lost
    await tell(claimed, 3);
    expect(await refused(tell(claimed, 9, 'gap'))).to.include(stale);
    await end(claimed, 'no such library', [{ requirement: 0, message: 'not there' }]);
    await end(claimed, 'said again');
    const frames = await live;
    expect(textsOf(frames)).to.deep.equal(['0 one', '1 two', '2 three']);
    expect(frames.at(-1)?.end?.environment).to.deep.include({
      state: Environment_State.FAILED,
      error: 'no such library',
      problems: [{ line: 2, message: 'not there' }],
      packages: [],
    });
    expect(textsOf(await watch(id, frames[0]?.line?.cursor))).to.deep.equal(['1 two', '2 three']);
    for (const cursor of ['l3', 'x', '-1']) {
      expect((await refused(watch(id, cursor))).reason).to.equal('CURSOR_INVALID');
    }
  });

  it('begin anew when their builder is lost, and no longer hear the one that was', async () => {
    const { id, platform, digest } = await make();
    const first = await claim(platform);
    await tell(first, 0, 'one');
    await lose(digest);
    const second = await claim(platform);
    expect([second.epoch, second.nextLine]).to.deep.equal([2, 2]);
    expect(await refused(tell(first, 1, 'late'))).to.include(stale);
    expect(await refused(end(first))).to.include(stale);
    await tell(second, 2, 'anew');
    await end(second);
    expect(textsOf(await watch(id))).to.deep.equal(['0 one', '1 the builder was lost: the build begins anew', '2 anew']);
  });

  it('fail when they cost one builder after the other, until somebody asks again', async () => {
    const { id, platform, digest } = await make();
    for (const _ of [1, 2, 3]) {
      await claim(platform);
      await lose(digest);
    }
    await refused(builder.claimEnvironmentBuild({ builderId: 'b', platform }, { deadlineMs: 1000 }));
    expect(await get(id)).to.deep.include({ state: Environment_State.FAILED, error: '3 builders were lost while they built it' });
    const waiting = claim(platform);
    expect((await service.retryEnvironmentBuild({ id })).error).to.equal('');
    expect((await waiting).epoch).to.equal(4);
    await until('the state', async () => (await get(id)).state === Environment_State.BUILDING);
    expect((await service.retryEnvironmentBuild({ id })).state).to.equal(Environment_State.BUILDING);
  });
});
