import { expect } from 'chai';
import { AutomationSpec_Network } from '#gen/millrace/automations/v1/spec.ts';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { freePort } from '../../../deploy/local/ports.ts';
import { until } from '../../../tests/world.ts';
import { module as automations } from '../../automations/module.ts';
import { attempts, type Lab, runningOf, startLab, stateOf } from './fixture.test.ts';

describe('a run that asks for the network', function () {
  this.timeout(60_000);
  let lab: Lab;
  before(async () => {
    // The area that knows the policies is away at first.
    const env = { MILLRACE_GRPC_ADDRESS: `127.0.0.1:${await freePort()}`, MILLRACE_RUNNER_URL: '127.0.0.1:1' };
    lab = await startLab({ env, more: [automations] });
    await lab.runner();
  });
  after(() => lab?.stop());

  it('can be cancelled while nobody has answered, and has not started then', async () => {
    const source = 'def main():\n    return "ran"\n';
    const id = await lab.start(await lab.publish({ source, network: AutomationSpec_Network.EGRESS }));
    await until('it to be claimed', () => runningOf(lab.world, id));
    await lab.world.as(lab.person, ExecutionServiceService).cancelExecution({ id, reason: '' });
    const done = await lab.ended(id, 30_000);
    expect([stateOf(done), done.output, done.startTime]).to.deep.equal(['CANCELLED', undefined, undefined]);
    expect(await attempts(lab.world, id)).to.deep.equal([]);
    const held = () => lab.world.db('executions')('running').count({ rows: '*' }).first();
    expect(Number((await held())?.rows), 'places that are taken').to.equal(0);
  });

  it('does not start by no policy: it waits, unused, until there is an answer', async () => {
    const source = 'def main():\n    return "ran"\n';
    const id = await lab.start(await lab.publish({ source, network: AutomationSpec_Network.EGRESS }));
    const other = await lab.start(await lab.publish({ source }));
    expect(stateOf(await lab.ended(other)), 'one without a network').to.equal('SUCCEEDED');
    const refusals = () => lab.world.logged().split('where scripts may connect to cannot be had now').length - 1;
    await until('it to be given back and claimed again', () => refusals() >= 2, 30_000);
    expect(await attempts(lab.world, id)).to.deep.equal([]);
    await lab.world.restart(['executions', 'dispatcher', 'automations']);
    const done = await lab.ended(id, 30_000);
    expect([stateOf(done), done.output, done.attemptCount]).to.deep.equal(['SUCCEEDED', 'ran', 1]);
    expect((await attempts(lab.world, id)).map(({ state }) => state)).to.deep.equal(['SUCCEEDED']);
  });
});
