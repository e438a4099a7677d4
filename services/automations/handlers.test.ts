import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { Automation } from '#gen/millrace/automations/v1/automation.ts';
import { AutomationEvent } from '#gen/millrace/automations/v1/automation_event.ts';
import {
  AutomationServiceService,
  CreateAutomationRequest,
  CreateAutomationRevisionRequest,
} from '#gen/millrace/automations/v1/automation_service.ts';
import type { ClientOf } from '#platform/client.ts';
import { newId } from '#platform/id.ts';
import { type Listener, listen } from '../../tests/events.ts';
import { refused } from '../../tests/refusal.ts';
import { type Person, startWorld, until, type World } from '../../tests/world.ts';
import { module } from './module.ts';

// What needs executions and an automation server is tested in tests/; here neither answers.
describe('AutomationService, alone', function () {
  this.timeout(60_000); // a call to who does not answer is repeated for some seconds
  let world: World;
  let person: Person;
  let service: ClientOf<AutomationServiceService>;
  let published: Listener<AutomationEvent>;

  before(async () => {
    const nowhere = '127.0.0.1:1';
    world = await startWorld({
      targets: ['automations'],
      modules: [module],
      env: { MILLRACE_EXECUTIONS_URL: nowhere, MILLRACE_RUNNER_URL: nowhere },
    });
    published = await listen(world, 'automations', AutomationEvent.decode);
  });
  after(async () => {
    await published?.stop();
    await world?.stop();
  });
  beforeEach(() => {
    person = world.person();
    service = world.as(person, AutomationServiceService);
  });

  const create = (fields: Partial<Automation> = {}, requestId = '', by = service): Promise<Automation> =>
    by.createAutomation(CreateAutomationRequest.fromPartial({ automation: { name: 'Invoices', ...fields } as Automation, requestId }));
  const away = { code: status.UNAVAILABLE, reason: 'DEPENDENCY_UNAVAILABLE' };

  it('makes an automation, answers it and lists it', async () => {
    const made = await create({ description: 'd', labels: { team: 'a' }, latestRevision: 7 });
    expect(made).to.include({ name: 'Invoices', creatorId: person.user, latestRevision: 0, publishedRevision: 0, version: 1 });
    expect(await service.getAutomation({ id: made.id })).to.deep.equal(made);
    await create({ name: 'Bills' });
    const first = await service.listAutomations({ text: '', pageSize: 1, pageToken: '' });
    const second = await service.listAutomations({ text: '', pageSize: 1, pageToken: first.nextPageToken });
    expect([...first.automations, ...second.automations].map(({ name }) => name)).to.deep.equal(['Bills', 'Invoices']);
    expect(second.nextPageToken).to.equal('');
    const other = service.listAutomations({ text: 'x', pageSize: 1, pageToken: first.nextPageToken });
    expect(await refused(other)).to.include({ reason: 'PAGE_TOKEN_INVALID' });
  });

  it('refuses what the contract forbids', async () => {
    expect((await refused(create({ name: '' }))).metadata.fields).to.equal('name,description,disabled,labels');
    expect((await refused(create({ name: 'x'.repeat(201) }))).violations[0]?.field).to.equal('automation.name');
    expect(await refused(service.getAutomation({ id: newId('task') }))).to.include({ reason: 'ID_INVALID' });
    expect(await refused(service.getAutomation({ id: newId('automation') }))).to.include({ code: status.NOT_FOUND });
    const reader = world.as({ ...person, scopes: ['automations.read'] }, AutomationServiceService);
    expect(await refused(create({}, '', reader))).to.include({ reason: 'PERMISSION_MISSING' });
  });

  it('has one automation of a name, and one of an idempotency key', async () => {
    const key = newId('event');
    const made = await Promise.all(Array.from({ length: 5 }, () => create({}, key)));
    expect(new Set(made.map(({ id }) => id)).size).to.equal(1);
    expect(await refused(create({ name: 'Other' }, key))).to.include({ reason: 'IDEMPOTENCY_KEY_REUSED' });
    expect(await refused(create({ name: 'INVOICES' }))).to.include({ code: status.ALREADY_EXISTS, reason: 'NAME_TAKEN' });
  });

  it('keeps a change that executions cannot be told of, says so, and says so again', async () => {
    const { id } = await create();
    const rename = () => service.updateAutomation({ id, automation: Automation.fromPartial({ name: 'Bills' }), updateMask: undefined });
    expect(await refused(rename())).to.include(away);
    expect(await service.getAutomation({ id })).to.include({ name: 'Bills', version: 2 });
    expect(await refused(rename()), 'a repeated call tries again').to.include(away);
    expect(await service.getAutomation({ id })).to.include({ version: 2 });
    const empty = service.updateAutomation({ id, automation: Automation.fromPartial({}), updateMask: undefined });
    expect((await refused(empty)).metadata.fields).to.equal('name,description,disabled,labels');
    expect(await refused(service.deleteAutomation({ id }))).to.include(away);
    expect(await refused(service.getAutomation({ id }))).to.include({ code: status.NOT_FOUND });
    expect(await refused(service.deleteAutomation({ id })), 'a repeated call tries again').to.include(away);
    const mine = () => published.heard.filter(({ event }) => event.automation?.id === id);
    await until('the deletion to be published', () => mine().find(({ type }) => type === 'automation.deleted'));
    expect(mine().map(({ type, event }) => `${type} ${event.automation?.version}`)).to.have.members([
      'automation.created 1',
      'automation.updated 2',
      'automation.deleted 2',
    ]);
    expect(mine()[0]?.event).to.include({ workspaceId: person.workspace, actorId: person.user });
  });

  it('is disabled and enabled again by an update that says so and has no mask', async () => {
    const { id, disabled } = await create();
    expect(disabled).to.equal(false);
    for (const wanted of [true, false]) {
      const change = service.updateAutomation({ id, automation: Automation.fromPartial({ disabled: wanted }), updateMask: undefined });
      expect(await refused(change), 'executions cannot be told').to.include(away);
      expect(await service.getAutomation({ id })).to.include({ disabled: wanted, version: wanted ? 2 : 3 });
    }
  });

  it('writes no revision without a server to check it on, and publishes none when there is none', async () => {
    const { id } = await create();
    const revise = (source: string, inputSchema?: object) =>
      service.createAutomationRevision(
        CreateAutomationRevisionRequest.fromPartial({ automationId: id, spec: { source, ...(inputSchema && { inputSchema }) } }),
      );
    expect(await refused(revise('print(1)'))).to.include(away);
    expect(await refused(revise('print(1)', { type: 'int' }))).to.include({ code: status.INVALID_ARGUMENT, reason: 'SCHEMA_INVALID' });
    expect((await refused(revise(''))).violations[0]?.field).to.equal('spec.source');
    expect(await refused(service.validateSource({ source: 'print(1)' }))).to.include(away);
    expect(await refused(service.publishAutomation({ id, revision: 0 }))).to.include({ reason: 'NO_REVISION' });
    expect(await refused(service.rollbackAutomation({ id, requestId: '' }))).to.include({ reason: 'NO_REVISION' });
    expect(await service.getAutomation({ id })).to.include({ latestRevision: 0, version: 1 });
  });

  it('shows and changes nothing across workspaces', async () => {
    const { id } = await create();
    const stranger = world.as(world.person({ user: person.user }), AutomationServiceService);
    const calls = {
      get: () => stranger.getAutomation({ id }),
      update: () => stranger.updateAutomation({ id, automation: Automation.fromPartial({ name: 'mine' }), updateMask: undefined }),
      delete: () => stranger.deleteAutomation({ id }),
      publish: () => stranger.publishAutomation({ id, revision: 0 }),
      rollback: () => stranger.rollbackAutomation({ id, requestId: '' }),
      revise: () =>
        stranger.createAutomationRevision(CreateAutomationRevisionRequest.fromPartial({ automationId: id, spec: { source: 'x' } })),
      revision: () => stranger.getAutomationRevision({ automationId: id, number: 1 }),
      revisions: () => stranger.listAutomationRevisions({ automationId: id, pageSize: 0, pageToken: '' }),
      diff: () => stranger.diffAutomationRevisions({ automationId: id, from: 1, to: 1 }),
    };
    for (const [name, call] of Object.entries(calls)) expect((await refused(call())).code, name).to.equal(status.NOT_FOUND);
    expect((await stranger.listAutomations({ text: '', pageSize: 0, pageToken: '' })).automations).to.deep.equal([]);
    expect(await service.getAutomation({ id })).to.include({ name: 'Invoices', version: 1 });
  });
});
