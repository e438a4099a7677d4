import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { EgressGrantServiceService } from '#gen/millrace/automations/v1/egress_grant_service.ts';
import { EgressPolicy } from '#gen/millrace/automations/v1/egress_policy.ts';
import { EgressPolicyServiceService } from '#gen/millrace/automations/v1/egress_policy_service.ts';
import { newId } from '#platform/id.ts';
import { refused } from '../../tests/refusal.ts';
import { type Person, startWorld, type World } from '../../tests/world.ts';
import { module } from './module.ts';

describe('EgressPolicyService', function () {
  this.timeout(30_000);
  let world: World;
  let person: Person;

  before(async () => {
    const nowhere = '127.0.0.1:1';
    world = await startWorld({
      targets: ['automations'],
      modules: [module],
      env: { MILLRACE_EXECUTIONS_URL: nowhere, MILLRACE_RUNNER_URL: nowhere },
    });
  });
  after(() => world?.stop());
  beforeEach(() => {
    person = world.person();
  });

  const update = (policy: Partial<EgressPolicy>, updateMask?: string[], by = person) =>
    world.as(by, EgressPolicyServiceService).updateEgressPolicy({ egressPolicy: EgressPolicy.fromPartial(policy), updateMask });
  const get = (by = person) => world.as(by, EgressPolicyServiceService).getEgressPolicy({});
  const resolve = async (...workspaceIds: string[]) =>
    (await world.asService('dispatcher', EgressGrantServiceService).resolveEgressGrants({ workspaceIds })).policies;

  it('allows nothing until somebody allows something', async () => {
    expect(await get()).to.deep.equal(EgressPolicy.fromPartial({}));
    const rules = [
      { host: 'api.example.com', ports: [] },
      { host: '*.example.org', ports: [443, 8443] },
    ];
    const made = await update({ rules });
    expect(made).to.deep.include({
      rules: [
        { host: 'api.example.com', ports: [443] },
        { host: '*.example.org', ports: [443, 8443] },
      ],
      maxConnections: 16,
      maxMib: 100,
      version: 1,
      updaterId: person.user,
    });
    expect(await get()).to.deep.equal(made);
    expect(await get(world.person()), 'another workspace').to.deep.equal(EgressPolicy.fromPartial({}));
  });

  it('changes what the mask names, and takes away all rules by it', async () => {
    await update({ rules: [{ host: 'a.example', ports: [80] }], maxMib: 5 });
    const fewer = await update({ maxConnections: 2 });
    expect(fewer).to.deep.include({ rules: [{ host: 'a.example', ports: [80] }], maxConnections: 2, maxMib: 5, version: 2 });
    expect(await update({}, ['rules', 'max_mib'])).to.deep.include({ rules: [], maxConnections: 2, maxMib: 100, version: 3 });
    expect(await refused(update({}))).to.include({ reason: 'NO_FIELDS' });
    expect(await refused(update({}, ['version']))).to.include({ reason: 'FIELD_INVALID' });
  });

  it('loses no change of two at once', async () => {
    await Promise.all(Array.from({ length: 8 }, (_, index) => update(index % 2 ? { maxMib: 7 } : { maxConnections: 3 })));
    expect(await get()).to.include({ maxMib: 7, maxConnections: 3, version: 8 });
  });

  for (const host of [
    ...['', '*', '*.com', '*.*.example.com', 'a.*.example.com', '127.0.0.1', '2130706433', '0x7f.1', '::1', '[::1]', '10.0.0.0/8'],
    ...['API.example.com', 'a.example.com.', '.example.com', 'a..example.com', 'https://a.example.com', 'a.example.com:443', 'a b.example'],
    ...['bücher.example', '-a.example', `${'a'.repeat(64)}.example`, `${'a.'.repeat(126)}example`],
  ]) {
    it(`refuses ${host === '' ? 'no host' : host.slice(0, 40)}`, async () => {
      const fault = await refused(update({ rules: [{ host, ports: [] }] }));
      expect(fault).to.include({ code: status.INVALID_ARGUMENT, reason: 'FIELD_INVALID' });
      expect(fault.violations[0]?.field).to.equal('egressPolicy.rules.0.host');
    });
  }

  it('takes names as they are written', async () => {
    const hosts = [
      'a.example',
      'localhost',
      'xn--bcher-kva.example',
      '*.a-b.example.co.uk',
      '_dmarc.example.com',
      '1.example.com',
      '*.1.x.io',
    ];
    expect((await update({ rules: hosts.map((host) => ({ host, ports: [1, 65535] })) })).rules.map(({ host }) => host)).to.deep.equal(
      hosts,
    );
    for (const ports of [[0], [65536], [80, 80], Array.from({ length: 21 }, (_, index) => index + 1)])
      expect(await refused(update({ rules: [{ host: 'a.example', ports }] }))).to.include({ reason: 'FIELD_INVALID' });
    const many = Array.from({ length: 201 }, (_, index) => ({ host: `h${index}.example`, ports: [] }));
    expect(await refused(update({ rules: many }))).to.include({ reason: 'FIELD_INVALID' });
    expect((await update({ rules: many.slice(1) })).rules).to.have.length(200);
  });

  it('is changed by admins alone, and read by everybody in the workspace', async () => {
    await update({ rules: [{ host: 'a.example', ports: [] }] });
    for (const role of ['USER', 'VIEWER'] as const) {
      const other = { ...person, user: newId('user'), scopes: [...world.contract.scopesOf(role)] };
      expect(await refused(update({ maxMib: 1 }, undefined, other))).to.include({ code: status.PERMISSION_DENIED });
      expect((await get(other)).rules).to.have.length(1);
    }
  });

  it('is told to dispatchers, in the order in which they ask, and to nobody else', async () => {
    await update({ rules: [{ host: 'a.example', ports: [] }] });
    const stranger = newId('workspace');
    const [none, own, again] = await resolve(stranger, person.workspace, person.workspace);
    expect(none).to.deep.equal(EgressPolicy.fromPartial({}));
    expect(own).to.deep.equal(await get());
    expect(again).to.deep.equal(own);
    await update({}, ['rules']);
    expect((await resolve(person.workspace))[0]?.rules).to.deep.equal([]);
    const asUser = world.as(person, EgressGrantServiceService).resolveEgressGrants({ workspaceIds: [stranger] });
    expect((await refused(asUser)).code).to.be.oneOf([status.PERMISSION_DENIED, status.UNAUTHENTICATED]);
    const asOther = world.asService('tasks', EgressGrantServiceService).resolveEgressGrants({ workspaceIds: [stranger] });
    expect((await refused(asOther)).code).to.be.oneOf([status.PERMISSION_DENIED, status.UNAUTHENTICATED]);
  });
});
