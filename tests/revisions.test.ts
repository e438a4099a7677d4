// Automations together with what they call: executions, and a real automation server.
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { Automation } from '#gen/millrace/automations/v1/automation.ts';
import {
  AutomationServiceService,
  CreateAutomationRequest,
  CreateAutomationRevisionRequest,
} from '#gen/millrace/automations/v1/automation_service.ts';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import { CreateExecutionRequest, ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import type { ClientOf } from '#platform/client.ts';
import { newId } from '#platform/id.ts';
import { freePort } from '../deploy/local/ports.ts';
import { module as automationsModule } from '../services/automations/module.ts';
import { module as executionsModule } from '../services/executions/module.ts';
import { refused } from './refusal.ts';
import { type Runner, startRunner } from './runner.ts';
import { type Person, startWorld, until, type World } from './world.ts';

const GREET = 'def main(name: str, times: int = 1) -> str:\n    return " ".join([name] * times)\n';
const SHOUT = GREET.replace('name] *', 'name.upper()] *');

describe('the revisions of an automation', function () {
  this.timeout(60_000);
  let runner: Runner;
  let world: World;
  let person: Person;
  let automations: ClientOf<AutomationServiceService>;
  let executions: ClientOf<ExecutionServiceService>;

  before(async () => {
    runner = await startRunner();
    world = await startWorld({
      targets: ['automations', 'executions'],
      modules: [automationsModule, executionsModule],
      env: runner.env,
    });
  });
  after(async () => {
    await world?.stop();
    await runner?.stop();
  });
  beforeEach(() => {
    person = world.person();
    automations = world.as(person, AutomationServiceService);
    executions = world.as(person, ExecutionServiceService);
  });

  const create = async (): Promise<string> =>
    (await automations.createAutomation(CreateAutomationRequest.fromPartial({ automation: { name: newId('event') } }))).id;
  const revise = (automationId: string, spec: Partial<AutomationSpec>, requestId = '') =>
    automations.createAutomationRevision(
      CreateAutomationRevisionRequest.fromPartial({ automationId, spec: spec as object, note: 'n', requestId }),
    );
  const publish = (id: string, revision = 0) => automations.publishAutomation({ id, revision });
  const run = (automationId: string, { revision = 0, input = { name: 'ann' } as object } = {}) =>
    executions.createExecution(CreateExecutionRequest.fromPartial({ execution: { automationId, revision, input } }));

  it('are kept as they were written, with the schemas that the server derives', async () => {
    const id = await create();
    const first = await revise(id, { source: GREET });
    expect(first).to.include({ automationId: id, number: 1, note: 'n', creatorId: person.user, publishTime: undefined });
    expect(first.spec?.inputSchema).to.deep.include({ type: 'object', required: ['name'] });
    expect(first.spec?.inputSchema?.properties.times).to.include({ type: 'integer', default: 1 });
    expect(first.spec?.outputSchema).to.include({ type: 'string' });
    expect(first.spec?.retryPolicy?.maxAttempts).to.equal(3);
    expect(await automations.getAutomationRevision({ automationId: id, number: 1 })).to.deep.equal(first);
    await revise(id, { source: SHOUT, inputSchema: { type: 'object' } });
    const { revisions } = await automations.listAutomationRevisions({ automationId: id, pageSize: 0, pageToken: '' });
    expect(revisions.map(({ number, spec }) => [number, spec?.source])).to.deep.equal([
      [2, ''],
      [1, ''],
    ]); // prettier-ignore
    expect(await automations.getAutomation({ id })).to.include({ latestRevision: 2, publishedRevision: 0, inputSchema: undefined });
  });

  it('are refused with the line and column of what cannot run', async () => {
    const id = await create();
    const broken = await refused(revise(id, { source: 'def main():\n    return (1,\n' }));
    expect(broken).to.include({ code: status.INVALID_ARGUMENT, reason: 'SOURCE_INVALID' });
    expect(broken.violations[0]?.field).to.match(/^spec\.source:2:\d+$/);
    const checked = await automations.validateSource({ source: 'def main():\n    return (1,\n' });
    expect(checked.problems[0]).to.include({ line: 2 });
    expect((await automations.validateSource({ source: 'print(1)' })).hasMain).to.equal(false);
    expect((await automations.getAutomation({ id })).latestRevision).to.equal(0);
  });

  it('are written once for one idempotency key, and one after the other without', async () => {
    const id = await create();
    const key = newId('event');
    const same = await Promise.all([1, 2, 3].map(() => revise(id, { source: GREET }, key)));
    expect(same.map(({ number }) => number)).to.deep.equal([1, 1, 1]);
    expect(await refused(revise(id, { source: SHOUT }, key))).to.include({ reason: 'IDEMPOTENCY_KEY_REUSED' });
    const others = await Promise.all([1, 2, 3].map(() => revise(id, { source: SHOUT })));
    expect(others.map(({ number }) => number).sort()).to.deep.equal([2, 3, 4]);
  });

  it('run by number as soon as they are written, and without one as soon as they are published', async () => {
    const id = await create();
    expect(await refused(run(id))).to.include({ code: status.FAILED_PRECONDITION, reason: 'AUTOMATION_UNPUBLISHED' });
    await revise(id, { source: GREET });
    expect(await run(id, { revision: 1 })).to.include({ revision: 1 });
    expect(await refused(run(id))).to.include({ reason: 'AUTOMATION_UNPUBLISHED' });
    expect(await publish(id)).to.include({ publishedRevision: 1, version: 3 });
    expect((await automations.getAutomation({ id })).inputSchema).to.deep.include({ required: ['name'] });
    expect(await run(id)).to.include({ revision: 1 });
    expect(await refused(run(id, { input: {} }))).to.include({ reason: 'INPUT_INVALID' });
    await revise(id, { source: SHOUT });
    expect(await run(id)).to.include({ revision: 1 });
    for (const revision of [2, 1, 2]) {
      await publish(id, revision);
      expect(await run(id)).to.include({ revision });
    }
    expect(await refused(publish(id, 3))).to.include({ code: status.NOT_FOUND });
  });

  it('are rolled back to what was published before, once for one idempotency key', async () => {
    const id = await create();
    for (const source of [GREET, SHOUT, GREET]) await revise(id, { source });
    for (const number of [1, 3, 2]) await publish(id, number);
    const back = (requestId = '') => automations.rollbackAutomation({ id, requestId });
    const key = newId('event');
    expect(await back(key)).to.include({ publishedRevision: 3 });
    expect(await back(key)).to.include({ publishedRevision: 3 });
    expect(await run(id)).to.include({ revision: 3 });
    expect(await back()).to.include({ publishedRevision: 1 });
    expect(await refused(back())).to.include({ code: status.FAILED_PRECONDITION, reason: 'NO_REVISION' });
    expect(await run(id)).to.include({ revision: 1 });
    expect((await automations.getAutomationRevision({ automationId: id, number: 1 })).publishTime).to.be.instanceOf(Date);
  });

  it('are compared, source and settings', async () => {
    const id = await create();
    await revise(id, { source: GREET });
    await revise(id, AutomationSpec.fromPartial({ source: SHOUT, resources: { memoryMib: 64 } }));
    const difference = await automations.diffAutomationRevisions({ automationId: id, from: 1, to: 2 });
    expect(difference.sourceDiff).to.equal(
      '--- revision 1\n+++ revision 2\n@@ -1,2 +1,2 @@\n def main(name: str, times: int = 1) -> str:\n' +
        '-    return " ".join([name] * times)\n+    return " ".join([name.upper()] * times)\n',
    );
    expect(difference.settings).to.deep.equal([{ path: 'resources.memory_mib', fromJson: '512', toJson: '64' }]);
    const none = await automations.diffAutomationRevisions({ automationId: id, from: 2, to: 2 });
    expect(none).to.deep.equal({ sourceDiff: '', settings: [] });
  });

  it('do not run while the automation is disabled, nor after it was deleted', async () => {
    const id = await create();
    await revise(id, { source: GREET });
    await publish(id);
    const disable = (disabled: boolean) =>
      automations.updateAutomation({ id, automation: Automation.fromPartial({ disabled }), updateMask: ['disabled'] });
    expect(await disable(true))
      .to.deep.include({ disabled: true, publishedRevision: 1 })
      .and.have.nested.property('inputSchema.required');
    expect(await refused(run(id))).to.include({ reason: 'AUTOMATION_DISABLED' });
    await disable(false);
    await run(id);
    await automations.deleteAutomation({ id });
    expect(await refused(run(id))).to.include({ code: status.NOT_FOUND });
    expect(await refused(run(id, { revision: 1 }))).to.include({ code: status.NOT_FOUND });
    expect(await refused(automations.deleteAutomation({ id }))).to.include({ code: status.NOT_FOUND });
  });
});

describe('automations without executions', function () {
  this.timeout(60_000);
  let runner: Runner;
  let near: World; // automations
  let far: World; // executions, which come later
  let address: string;

  const start = (target: string, env: Record<string, string>) =>
    startWorld({ targets: [target], modules: [automationsModule, executionsModule], env: { ...runner.env, ...env } });
  before(async () => {
    runner = await startRunner();
    address = `127.0.0.1:${await freePort()}`;
    near = await start('automations', { MILLRACE_EXECUTIONS_URL: address });
  });
  after(async () => {
    await near?.stop();
    await far?.stop();
    await runner?.stop();
  });

  it('say that a change is kept but not told, and tell it when executions are there, without being asked', async () => {
    const person = near.person();
    const automations = near.as(person, AutomationServiceService);
    const { id } = await automations.createAutomation(CreateAutomationRequest.fromPartial({ automation: { name: 'a' } }));
    const revision = CreateAutomationRevisionRequest.fromPartial({ automationId: id, spec: { source: GREET }, requestId: 'once' });
    for (const change of [
      () => automations.createAutomationRevision(revision),
      () => automations.createAutomationRevision(revision),
      () => automations.publishAutomation({ id, revision: 0 }),
    ]) {
      expect(await change().catch((error) => error)).to.include({ code: status.UNAVAILABLE, reason: 'DEPENDENCY_UNAVAILABLE' });
    }
    expect(await automations.getAutomation({ id })).to.include({ latestRevision: 1, publishedRevision: 1 });
    far = await start('executions', { MILLRACE_GRPC_ADDRESS: address });
    const execution = CreateExecutionRequest.fromPartial({ execution: { automationId: id, input: { name: 'ann' } } });
    const run = () => far.as(person, ExecutionServiceService).createExecution(execution);
    const accepted = await until('executions to be told', () => run().catch(() => undefined), 30_000);
    expect(accepted.revision).to.equal(1);
    expect(await automations.createAutomationRevision(revision)).to.include({ number: 1 });
  });
});
