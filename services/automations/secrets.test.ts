import { randomBytes } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { Secret } from '#gen/millrace/automations/v1/secret.ts';
import { SecretServiceService } from '#gen/millrace/automations/v1/secret_service.ts';
import { ResolveValuesResponse_Problem_Reason as Reason, ValueServiceService } from '#gen/millrace/automations/v1/value_service.ts';
import { Variable } from '#gen/millrace/automations/v1/variable.ts';
import { VariableServiceService } from '#gen/millrace/automations/v1/variable_service.ts';
import { newId, toBytes } from '#platform/id.ts';
import { refused } from '../../tests/refusal.ts';
import { type Person, startWorld, until, type World } from '../../tests/world.ts';
import { module } from './module.ts';

const nowhere = '127.0.0.1:1';
const keyText = (id: string) => `${id}:${randomBytes(32).toString('base64')}`;

describe('secrets and variables', function () {
  this.timeout(30_000);
  const [first, second] = [keyText('k1'), keyText('k2')];
  const env = { MILLRACE_EXECUTIONS_URL: nowhere, MILLRACE_RUNNER_URL: nowhere, MILLRACE_AUTOMATIONS_SECRET_KEYS: first };
  let world: World;
  let person: Person;
  const automation = newId('automation');

  before(async () => {
    world = await startWorld({ targets: ['automations'], modules: [module], env: { ...env, MILLRACE_AUTOMATIONS_MAX_SECRETS: '5' } });
  });
  after(() => world?.stop());
  beforeEach(() => {
    person = world.person();
  });

  const secrets = (by = person) => world.as(by, SecretServiceService);
  const variables = (by = person) => world.as(by, VariableServiceService);
  const create = (fields: Partial<Secret>, requestId = '') =>
    secrets().createSecret({ secret: Secret.fromPartial({ name: 'TOKEN', value: 'a-secret-value', ...fields }), requestId });
  const set = (name: string, value: unknown) =>
    variables().createVariable({ variable: Variable.fromPartial({ name, value }), requestId: '' });
  const resolve = async (fields: { secrets?: string[]; variables?: string[]; automationId?: string; userId?: string; by?: Person }) => {
    const { by = person, ...asked } = fields;
    const item = { workspaceId: by.workspace, automationId: automation, userId: by.user, secrets: [], variables: [], ...asked };
    const { items } = await world.asService('dispatcher', ValueServiceService).resolveValues({ items: [item] });
    return items[0] ?? expect.fail('no answer');
  };

  it('keeps a secret that no method answers, under a name that stays', async () => {
    const made = await create({ description: 'for the bank' });
    expect(made).to.include({ name: 'TOKEN', value: '', valueVersion: 1, description: 'for the bank', creatorId: person.user });
    const { secrets: listed } = await secrets().listSecrets({ name: '', pageSize: 0, pageToken: '' });
    expect([await secrets().getSecret({ id: made.id }), listed[0]]).to.deep.equal([made, made]);
    expect((await resolve({ secrets: ['TOKEN'] })).secrets).to.deep.equal([
      { name: 'TOKEN', value: 'a-secret-value', version: `${made.id}.1` },
    ]);
    expect(await refused(create({}))).to.include({ code: status.ALREADY_EXISTS, reason: 'NAME_TAKEN' });
    const renamed = secrets().updateSecret({
      id: made.id,
      secret: Secret.fromPartial({ name: 'OTHER', value: 'another-value' }),
      updateMask: undefined,
    });
    expect(await refused(renamed)).to.include({ reason: 'NO_FIELDS' });
    const kept = JSON.stringify(await world.db('automations')('secrets').select(), (_, value) =>
      value?.type === 'Buffer' ? Buffer.from(value.data).toString('latin1') : value,
    );
    expect(kept).to.include('for the bank').and.not.include('a-secret-value');
  });

  it('rotates a value: the next one is given from then on, and the one before is gone', async () => {
    const { id } = await create({});
    const before = await world
      .db('automations')('secrets')
      .where({ id: toBytes('secret', id) })
      .first();
    const other = world.person({ workspace: person.workspace });
    const rotated = await secrets(other).rotateSecret({ id, value: 'another-value' });
    expect(rotated).to.include({ valueVersion: 2, version: 2, valueCreatorId: other.user, creatorId: person.user, value: '' });
    expect((await resolve({ secrets: ['TOKEN'] })).secrets[0]).to.include({ value: 'another-value', version: `${id}.2` });
    const after = await world
      .db('automations')('secrets')
      .where({ id: toBytes('secret', id) })
      .first();
    expect(after.sealed.equals(before.sealed) || after.wrapped_key.equals(before.wrapped_key)).to.equal(false);
    await secrets().deleteSecret({ id });
    expect(await refused(secrets().getSecret({ id }))).to.include({ code: status.NOT_FOUND });
    expect((await resolve({ secrets: ['TOKEN'] })).problems).to.deep.equal([{ kind: 'secret', name: 'TOKEN', reason: Reason.MISSING }]);
  });

  it('gives a secret only to the automations and users that it is for, in its own workspace', async () => {
    const { id } = await create({ automationIds: [automation] });
    const reasons = async (asked: Parameters<typeof resolve>[0]) =>
      (await resolve({ secrets: ['TOKEN'], ...asked })).problems.map(({ reason }) => reason);
    expect(await reasons({})).to.deep.equal([]);
    expect(await reasons({ automationId: newId('automation') })).to.deep.equal([Reason.NOT_ALLOWED]);
    const limits = Secret.fromPartial({ userIds: [person.user] });
    await secrets().updateSecret({ id, secret: limits, updateMask: ['automation_ids', 'user_ids'] });
    expect(await reasons({ automationId: newId('automation') })).to.deep.equal([]);
    expect(await reasons({ userId: newId('user') })).to.deep.equal([Reason.NOT_ALLOWED]);
    expect(await reasons({ by: world.person() })).to.deep.equal([Reason.MISSING]);
    expect(await refused(create({ name: 'B', userIds: ['me'] }))).to.include({ reason: 'ID_INVALID' });
  });

  it('refuses what it could not hide or keep, and does not repeat the value', async () => {
    const short = await refused(create({ value: 'seven77' }));
    expect(short.violations[0]?.field).to.equal('secret.value');
    for (const fault of [short, await refused(create({ value: 'x'.repeat(16_385) })), await refused(create({ name: '1A' }))])
      expect([fault.code, JSON.stringify([fault.message, fault.violations, fault.metadata])]).to.satisfy(
        ([code, text]: [number, string]) => code === status.INVALID_ARGUMENT && !text.includes('seven77') && !text.includes('xxxxxxxxx'),
      );
    expect(await refused(create({ name: '' }))).to.include({ reason: 'FIELD_INVALID' });
    for (const name of ['A', 'B', 'C', 'D', 'E']) await create({ name });
    expect(await refused(create({ name: 'F' }))).to.include({ reason: 'TOO_MANY_SECRETS' });
  });

  it('answers a repeated request with the first secret, and keeps no hash of a value', async () => {
    const requestId = newId('event');
    const made = await create({}, requestId);
    expect(await create({ value: 'other-secret-value' }, requestId)).to.deep.equal(made);
    expect((await resolve({ secrets: ['TOKEN'] })).secrets[0]?.value).to.equal('a-secret-value');
    expect(await refused(create({ name: 'OTHER' }, requestId))).to.include({ reason: 'IDEMPOTENCY_KEY_REUSED' });
  });

  it('lets only those manage secrets who may, and none but the dispatcher read a value', async () => {
    const { id } = await create({});
    const user = { ...person, scopes: [...world.contract.scopesOf('USER')] };
    expect(await secrets(user).getSecret({ id })).to.include({ id });
    expect(await refused(secrets(user).rotateSecret({ id, value: 'another-value' }))).to.include({ reason: 'PERMISSION_MISSING' });
    expect(await refused(secrets(world.person()).deleteSecret({ id }))).to.include({ code: status.NOT_FOUND });
    const asked = { items: [] };
    expect(await refused(world.as(person, ValueServiceService).resolveValues(asked))).to.include({ code: status.PERMISSION_DENIED });
    const stranger = world.asService('executions', ValueServiceService).resolveValues(asked);
    expect(await refused(stranger)).to.include({ reason: 'SERVICE_NOT_ACCEPTED' });
  });

  it('wraps by the new key what the old one wrapped, and goes on without the old one', async () => {
    const { id } = await create({});
    const keyOf = async () =>
      (
        await world
          .db('automations')('secrets')
          .where({ id: toBytes('secret', id) })
          .first()
      ).key_id;
    expect(await keyOf()).to.equal('k1');
    world.env.MILLRACE_AUTOMATIONS_SECRET_KEYS = `${second}\n${first}`;
    await world.restart();
    await until('the secret to be wrapped anew', async () => (await keyOf()) === 'k2');
    world.env.MILLRACE_AUTOMATIONS_SECRET_KEYS = second;
    await world.restart();
    expect((await resolve({ secrets: ['TOKEN'] })).secrets[0]?.value).to.equal('a-secret-value');
    world.env.MILLRACE_AUTOMATIONS_SECRET_KEYS = keyText('k2');
    await world.restart();
    expect((await resolve({ secrets: ['TOKEN'] })).problems[0]?.reason).to.equal(Reason.UNREADABLE);
    world.env.MILLRACE_AUTOMATIONS_SECRET_KEYS = second;
    await world.restart();
  });

  it('keeps variables of any JSON but null, which members read', async () => {
    const values = ['text', 0, false, '', 12.5, { a: [1, null, 'é'] }, []];
    for (const [index, value] of values.entries()) {
      const made = await set(`V${index}`, value);
      expect((await variables().getVariable({ id: made.id })).value).to.deep.equal(value);
    }
    const found = await resolve({ variables: values.map((_, index) => `V${index}`) });
    expect(found.variables.map(({ valueJson }) => JSON.parse(valueJson))).to.deep.equal(values);
    expect(await refused(set('NONE', null))).to.include({ reason: 'FIELD_INVALID' });
    expect(await refused(set('BIG', 'x'.repeat(16_384)))).to.include({ reason: 'FIELD_INVALID' });
    expect(await refused(set('V0', 1))).to.include({ reason: 'NAME_TAKEN' });
    const { variables: page, nextPageToken } = await variables().listVariables({ name: '', pageSize: 2, pageToken: '' });
    expect([page.map(({ name }) => name), nextPageToken !== '']).to.deep.equal([['V0', 'V1'], true]);
  });

  it('changes a variable, and gives it another version', async () => {
    const { id } = await set('LIMIT', 5);
    const changed = await variables().updateVariable({ id, variable: Variable.fromPartial({ value: 0 }), updateMask: undefined });
    expect(changed).to.include({ value: 0, version: 2, name: 'LIMIT' });
    expect((await resolve({ variables: ['LIMIT', 'GONE'] })).variables).to.deep.equal([
      { name: 'LIMIT', valueJson: '0', version: `${id}.2` },
    ]);
    await variables().deleteVariable({ id });
    expect((await resolve({ variables: ['LIMIT'] })).problems).to.deep.equal([{ kind: 'variable', name: 'LIMIT', reason: Reason.MISSING }]);
  });
});
