import { spawn } from 'node:child_process';
import { status } from '@grpc/grpc-js';
import { jetstream } from '@nats-io/jetstream';
import { connect, headers } from '@nats-io/transport-node';
import { expect } from 'chai';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import { ExecutionServiceService, ListExecutionsRequest } from '#gen/millrace/executions/v1/execution_service.ts';
import { ProjectionServiceService } from '#gen/millrace/executions/v1/projection_service.ts';
import { Hook, Hook_Preset, HookAuth, HookAuth_Type } from '#gen/millrace/webhooks/v1/hook.ts';
import { HookDelivery_State as State } from '#gen/millrace/webhooks/v1/hook_delivery.ts';
import { HookDeliveryServiceService, ListHookDeliveriesRequest } from '#gen/millrace/webhooks/v1/hook_delivery_service.ts';
import { CreateHookRequest, HookServiceService, RotateHookSecretRequest } from '#gen/millrace/webhooks/v1/hook_service.ts';
import { brokerAddress } from '#platform/broker-address.ts';
import type { ClientOf } from '#platform/client.ts';
import { newId, toBytes } from '#platform/id.ts';
import { freePort } from '../../deploy/local/ports.ts';
import { type Person, startWorld, until, type World } from '../../tests/world.ts';
import { module as executionsModule } from '../executions/module.ts';
import { send, standard } from './fixture.test.ts';
import { sweep } from './hook-system.ts';
import { module as webhooksModule } from './module.ts';

const modules = [executionsModule, webhooksModule];
const NONE = HookAuth.fromPartial({ type: HookAuth_Type.NONE });

describe('hooks', function () {
  this.timeout(60_000);
  let world: World;
  let person: Person;
  let hooks: ClientOf<HookServiceService>;
  let deliveries: ClientOf<HookDeliveryServiceService>;
  let executions: ClientOf<ExecutionServiceService>;
  let automationId: string;

  async function apply(automation: string, into: World, of: Person): Promise<void> {
    const told = { workspaceId: of.workspace, name: 'a', version: 1, publishedRevision: 1, disabled: false, deleted: false };
    const source = 'def main(**event):\n    return event\n';
    const revisions = [{ number: 1, spec: AutomationSpec.fromPartial({ source }) }];
    await into.asService('automations', ProjectionServiceService).applyAutomation({ ...told, automationId: automation, revisions });
  }
  before(async () => {
    world = await startWorld({ targets: ['executions', 'webhooks'], modules });
    person = world.person();
    hooks = world.as(person, HookServiceService);
    deliveries = world.as(person, HookDeliveryServiceService);
    executions = world.as(person, ExecutionServiceService);
    automationId = newId('automation');
    await apply(automationId, world, person);
  });
  after(() => world?.stop());

  const create = (fields: Partial<Hook> = {}): Promise<Hook> =>
    hooks.createHook(CreateHookRequest.fromPartial({ hook: { name: 'a hook', automationId, ...fields } as Hook }));
  const caught = (work: Promise<unknown>) =>
    work.then(
      (answer) => answer,
      (error) => error,
    );
  const runsOf = async (hook: Hook) =>
    (await executions.listExecutions(ListExecutionsRequest.fromPartial({ pageSize: 200 }))).executions.filter(
      ({ labels }) => labels.hook === hook.id,
    );
  const listed = async (hook: Hook, states: State[] = []) =>
    (await deliveries.listHookDeliveries(ListHookDeliveriesRequest.fromPartial({ hookId: hook.id, states }))).deliveries;
  const signed = (hook: Hook, id: string, body: string, at?: number) => send(world, hook.id, body, standard(hook.secret, id, body, at));

  describe('as a resource', () => {
    it('show their secret once, and keep it sealed', async () => {
      const made = await create({ name: '  deploys ' });
      expect(made).to.include({
        name: 'deploys',
        path: `/hooks/${made.id}`,
        disabled: false,
        version: 1,
        creatorId: person.user,
        preset: Hook_Preset.GENERIC,
      });
      expect(made.secret).to.match(/^whsec_[A-Za-z0-9+/]{43}=$/);
      const read = await hooks.getHook({ id: made.id });
      expect(read).to.deep.equal({ ...made, secret: '' });
      expect((await hooks.listHooks({ automationId, pageSize: 0, pageToken: '' })).hooks.find(({ id }) => id === made.id)?.secret).to.equal(
        '',
      );
      const row = await world
        .db('webhooks')('hooks')
        .where({ id: toBytes('hook', made.id) })
        .first();
      expect(row.secret.includes(Buffer.from(made.secret.slice(6, 20)))).to.equal(false);
      expect(world.logged()).not.to.include(made.secret);
    });

    it('are made once for a key, and the repeated answer shows no secret', async () => {
      const request = CreateHookRequest.fromPartial({ hook: { name: 'once', automationId } as Hook, requestId: newId('event') });
      const [one, two] = [await hooks.createHook(request), await hooks.createHook(request)];
      expect(two).to.deep.equal({ ...one, secret: '' });
    });

    it('are changed by mask, disabled and deleted, and belong to their workspace', async () => {
      const made = await create();
      const changed = await hooks.updateHook({
        id: made.id,
        hook: Hook.fromPartial({ name: 'other', filter: 'body.a == 1' }),
        updateMask: undefined,
      });
      expect(changed).to.include({ name: 'other', filter: 'body.a == 1', version: 2, automationId });
      expect(await hooks.updateHook({ id: made.id, hook: Hook.fromPartial({}), updateMask: ['filter'] })).to.include({
        filter: '',
        version: 3,
      });
      expect(await hooks.disableHook({ id: made.id })).to.include({ disabled: true, version: 4 });
      expect(await hooks.disableHook({ id: made.id }), 'again').to.include({ version: 4 });
      const stranger = world.as(world.person(), HookServiceService);
      for (const call of [stranger.getHook, stranger.deleteHook, stranger.enableHook, stranger.disableHook])
        expect(await caught(call({ id: made.id }))).to.include({ code: status.NOT_FOUND });
      expect(await caught(stranger.rotateHookSecret(RotateHookSecretRequest.fromPartial({ id: made.id })))).to.include({
        code: status.NOT_FOUND,
      });
      expect(await caught(stranger.updateHook({ id: made.id, hook: Hook.fromPartial({ name: 'x' }), updateMask: undefined }))).to.include({
        code: status.NOT_FOUND,
      });
      await hooks.deleteHook({ id: made.id });
      expect(await caught(hooks.getHook({ id: made.id }))).to.include({ code: status.NOT_FOUND });
    });

    it('run for who made them, or last changed what runs or enabled them, and are disabled with that user', async () => {
      const colleague = { ...person, user: newId('user') };
      const theirs = world.as(colleague, HookServiceService);
      const made = await create({ auth: NONE });
      const renamed = await theirs.updateHook({ id: made.id, hook: Hook.fromPartial({ name: 'b' }), updateMask: undefined });
      expect(renamed).to.include({ creatorId: person.user, runAsId: person.user });
      const mapped = await theirs.updateHook({ id: made.id, hook: Hook.fromPartial({ input: 'body' }), updateMask: undefined });
      expect(mapped).to.include({ creatorId: person.user, runAsId: colleague.user });
      const { answer } = await send(world, made.id, '{}');
      expect((await executions.getExecution({ id: answer.executionId })).creatorId).to.equal(colleague.user);
      const other = await create({ auth: NONE });
      const event = { type: 'user.disabled', verb: 'disabled', subject: colleague.user, workspace: '', version: 2 };
      const connection = await connect(brokerAddress(world.config.natsUrl));
      const told = headers();
      for (const [name, value] of Object.entries({ id: newId('event'), ...event, time: new Date().toISOString() }))
        told.set(`ce-${name}`, `${value}`);
      await jetstream(connection).publish(`${world.config.natsPrefix}.events.identity.${colleague.user}.disabled`, '', { headers: told });
      await connection.close();
      await until('it to be disabled', async () => (await hooks.getHook({ id: made.id })).disabled);
      expect((await hooks.getHook({ id: other.id })).disabled).to.equal(false);
      expect(await hooks.enableHook({ id: made.id })).to.include({ disabled: false, runAsId: person.user });
    });

    it('are only so many in a workspace', async () => {
      const few = await startWorld({ targets: ['executions', 'webhooks'], modules, env: { MILLRACE_WEBHOOKS_MAX_HOOKS: '1' } });
      const service = few.as(person, HookServiceService);
      const request = CreateHookRequest.fromPartial({ hook: { name: 'a', automationId } as Hook });
      await service.createHook(request);
      expect(await caught(service.createHook(request))).to.include({ code: status.FAILED_PRECONDITION, reason: 'TOO_MANY_HOOKS' });
      expect(await few.as(few.person(), HookServiceService).createHook(request)).to.include({ version: 1 });
      await few.stop();
    });

    it('are refused with expressions that are none, and to who may not run executions', async () => {
      for (const field of ['filter', 'input'] as const) {
        expect(await caught(create({ [field]: 'body.a ==' }))).to.include({ code: status.INVALID_ARGUMENT, reason: 'EXPRESSION_INVALID' });
      }
      const made = await create();
      expect(await caught(hooks.updateHook({ id: made.id, hook: Hook.fromPartial({ filter: '((' }), updateMask: undefined }))).to.include({
        reason: 'EXPRESSION_INVALID',
      });
      const writer = world.as({ ...person, scopes: ['webhooks.read', 'webhooks.write'] }, HookServiceService);
      expect(await caught(writer.createHook(CreateHookRequest.fromPartial({ hook: { name: 'a', automationId } as Hook })))).to.include({
        reason: 'PERMISSION_MISSING',
      });
      expect(await caught(writer.enableHook({ id: made.id }))).to.include({ reason: 'PERMISSION_MISSING' });
    });
  });

  describe('when they are called', () => {
    it('run the automation with the body, once for a delivery id', async () => {
      const hook = await create();
      const body = ' {"a": [1, "é🥛"],\n\t"b":  null}';
      const first = await signed(hook, 'msg_1', body);
      expect(first).to.deep.include({ code: 202 });
      expect(first.answer).to.include({ state: 'DELIVERED' });
      const execution = await executions.getExecution({ id: first.answer.executionId });
      expect(execution).to.deep.include({
        input: { a: [1, 'é🥛'], b: null },
        creatorId: person.user,
        labels: { hook: hook.id, delivery: first.answer.deliveryId },
      });
      expect((await signed(hook, 'msg_1', body)).answer).to.deep.equal(first.answer);
      const second = await signed(hook, 'msg_2', body);
      expect(second.answer.executionId).not.to.equal(first.answer.executionId);
      expect(await runsOf(hook)).to.have.length(2);
      const kept = await deliveries.getHookDelivery({ hookId: hook.id, id: first.answer.deliveryId });
      expect(kept).to.deep.include({
        state: State.DELIVERED,
        senderDeliveryId: 'msg_1',
        body,
        duplicateCount: 1,
        attemptCount: 1,
        error: '',
      });
      expect(kept.bodySizeBytes).to.equal(Buffer.byteLength(body));
      expect(kept.headers).to.include({ 'webhook-signature': '[redacted]', 'webhook-id': 'msg_1', 'content-type': 'application/json' });
    });

    it('make one execution of a delivery that comes five times at once', async () => {
      const hook = await create();
      const answers = await Promise.all(Array.from({ length: 5 }, () => signed(hook, 'msg_same', '{"n": 1}')));
      expect(new Set(answers.map(({ answer }) => answer.deliveryId)).size).to.equal(1);
      expect(answers.map(({ code }) => code)).to.deep.equal([202, 202, 202, 202, 202]);
      await until('the execution', async () => (await listed(hook, [State.DELIVERED])).length === 1);
      expect(await runsOf(hook)).to.have.length(1);
      expect((await listed(hook))[0]).to.include({ duplicateCount: 4 });
    });

    it('count the same signed bytes once within the tolerance, whatever id stands beside them', async () => {
      const hook = await create({ preset: Hook_Preset.GITHUB, secret: 'a-secret-of-GitHub' });
      const body = '{"zen": "x"}';
      const { createHmac } = await import('node:crypto');
      const signature = `sha256=${createHmac('sha256', 'a-secret-of-GitHub').update(body).digest('hex')}`;
      const call = (guid: string) => send(world, hook.id, body, { 'x-hub-signature-256': signature, 'x-github-delivery': guid });
      const [first, replayed] = [await call('one'), await call('two')];
      expect(replayed.answer).to.deep.equal(first.answer);
      await world
        .db('webhooks')('hook_keys')
        .where({ hook: toBytes('hook', hook.id) })
        .update({ expire_time: new Date(0) });
      expect((await call('three')).answer.deliveryId, 'later').not.to.equal(first.answer.deliveryId);
      expect(await runsOf(hook)).to.have.length(2);
    });

    it('refuse what is tampered with, too old or unsigned, and log that without its body', async () => {
      const hook = await create();
      const good = standard(hook.secret, 'msg', '{"pay": 1}');
      const old = standard(hook.secret, 'msg', '{"pay": 1}', Date.now() - 301_000);
      for (const [body, headers] of [
        ['{"pay": 2}', good],
        ['{"pay": 1}', { ...good, 'webhook-id': 'msg2' }],
        ['{"pay": 1}', old],
        ['{"pay": 1}', {}],
      ] as const)
        expect(await caught(send(world, hook.id, body, headers))).to.include({ code: status.UNAUTHENTICATED, reason: 'SIGNATURE_INVALID' });
      const refused = await until('the log', async () => {
        const rows = await listed(hook);
        return rows.length === 4 ? rows : undefined;
      });
      for (const row of refused) expect(row).to.include({ state: State.REFUSED, bodySizeBytes: 0, executionId: '' });
      expect(refused.map(({ error }) => error).join())
        .to.include('more than the tolerance')
        .and.include('is missing')
        .and.include('does not fit');
      expect(await runsOf(hook)).to.deep.equal([]);
      expect(await caught(deliveries.redeliverHookDelivery({ hookId: hook.id, id: refused[0]?.id ?? '', requestId: '' }))).to.include({
        reason: 'DELIVERY_EMPTY',
      });
    });

    it('log of a flood only some', async () => {
      const hook = await create();
      await Promise.all(Array.from({ length: 60 }, () => caught(send(world, hook.id, '{}', {}))));
      const count = async () =>
        Number(
          (
            await world
              .db('webhooks')('hook_deliveries')
              .where({ hook: toBytes('hook', hook.id) })
              .count({ n: '*' })
          )[0]?.n,
        );
      await until('the log', async () => (await count()) === 30);
    });

    it('are not found when there is none, whatever the request brings, and log nothing', async () => {
      for (const id of [newId('hook'), newId('task'), 'x', '..', 'hok_'])
        expect(await caught(send(world, id, '{}', { authorization: 'Basic x' })), id).to.include({
          code: status.NOT_FOUND,
          reason: 'RESOURCE_NOT_FOUND',
        });
    });

    it('take no body over 1 MiB', async () => {
      const hook = await create({ auth: NONE });
      const edge = (bytes: number) => send(world, hook.id, JSON.stringify({ a: 'x'.repeat(bytes - 8) }));
      expect(await edge(1024 * 1024)).to.include({ code: 202 });
      expect(await caught(edge(1024 * 1024 + 1))).to.include({ code: status.INVALID_ARGUMENT, reason: 'REQUEST_TOO_LARGE' });
    });

    it('tell only their sender that they are disabled', async () => {
      const hook = await create();
      await hooks.disableHook({ id: hook.id });
      expect(await caught(signed(hook, 'm', '{}'))).to.include({ code: status.FAILED_PRECONDITION, reason: 'HOOK_DISABLED' });
      expect(await caught(send(world, hook.id, '{}'))).to.include({ reason: 'SIGNATURE_INVALID' });
      await hooks.enableHook({ id: hook.id });
      expect(await signed(hook, 'm', '{}')).to.include({ code: 202 });
    });

    it('take the old secret and the new one until the overlap ends, then the new one only', async () => {
      const hook = await create();
      const next = await hooks.rotateHookSecret(RotateHookSecretRequest.fromPartial({ id: hook.id }));
      expect(next.secret)
        .to.match(/^whsec_/)
        .and.not.equal(hook.secret);
      expect(next.previousSecretExpireTime).to.be.instanceOf(Date);
      expect(await signed(hook, 'a', '{}')).to.include({ code: 202 });
      expect(await signed(next, 'b', '{}')).to.include({ code: 202 });
      const last = await hooks.rotateHookSecret({ id: hook.id, overlap: { seconds: 0, nanos: 0 }, secret: '' });
      for (const gone of [hook, next]) expect(await caught(signed(gone, 'c', '{}'))).to.include({ reason: 'SIGNATURE_INVALID' });
      expect(await signed(last, 'd', '{}')).to.include({ code: 202 });
      const third = await hooks.rotateHookSecret(RotateHookSecretRequest.fromPartial({ id: hook.id, overlap: { seconds: 60, nanos: 0 } }));
      await world
        .db('webhooks')('hooks')
        .where({ id: toBytes('hook', hook.id) })
        .update({ previous_until: new Date(Date.now() - 1000) });
      expect(await caught(signed(last, 'e', '{}'))).to.include({ reason: 'SIGNATURE_INVALID' });
      expect(await signed(third, 'f', '{}')).to.include({ code: 202 });
    });

    it('ignore what their filter refuses, and map the rest', async () => {
      const hook = await create({
        auth: NONE,
        filter: 'headers["x-github-event"] == "push" && query.env == "prod"',
        input: '{"ref": body.ref, "by": body.pusher.name, "method": method}',
      });
      const call = (event: string, body = '{"ref": "main", "pusher": {"name": "ann"}}') =>
        send(world, hook.id, body, { 'x-github-event': event, 'x-envoy-original-path': `/hooks/${hook.id}?env=prod&x=%C3%A9` });
      expect(await call('ping')).to.deep.include({ code: 200 });
      const { answer } = await call('push');
      expect((await executions.getExecution({ id: answer.executionId })).input).to.deep.equal({ ref: 'main', by: 'ann', method: 'POST' });
      expect((await call('push', '{"ref": "main"}')).answer).to.include({ state: 'FAILED' });
      const [failed, , ignored] = await listed(hook);
      expect(failed?.error).to.match(/^MAPPING_FAILED: the mapping fails/);
      expect(ignored).to.include({ state: State.IGNORED, query: 'env=prod&x=%C3%A9' });
    });

    it('show expressions and the log no credentials', async () => {
      const hook = await create({
        auth: HookAuth.fromPartial({ type: HookAuth_Type.API_KEY, header: 'x-own' }),
        input: '{"seen": headers}',
      });
      const { answer } = await send(world, hook.id, '{}', { 'x-own': hook.secret, cookie: 'a=b', 'x-plain': 'p' });
      const { input } = await executions.getExecution({ id: answer.executionId });
      expect(input?.seen).to.include({ 'x-own': '[redacted]', cookie: '[redacted]', 'x-plain': 'p', 'content-type': 'application/json' });
      expect(JSON.stringify(await deliveries.getHookDelivery({ hookId: hook.id, id: answer.deliveryId }))).not.to.include(hook.secret);
    });

    it('take forms, and parts of bodies by a pointer', async () => {
      const hook = await create({ auth: NONE, input: '/payload/0' });
      const { answer } = await send(world, hook.id, '{"payload": [{"deep": true}]}');
      expect((await executions.getExecution({ id: answer.executionId })).input).to.deep.equal({ deep: true });
      const form = await create({ auth: NONE });
      const sent = await send(world, form.id, 'a=1&b=%C3%A9+x', {}, 'application/x-www-form-urlencoded; charset=utf-8');
      expect((await executions.getExecution({ id: sent.answer.executionId })).input).to.deep.equal({ a: '1', b: 'é x' });
      expect((await send(world, form.id, Buffer.from([0xff, 0xfe]))).answer).to.include({ state: 'FAILED' });
      for (const depth of [100, 200_000]) {
        const deep = `{"a": ${'['.repeat(depth)}${']'.repeat(depth)}}`;
        expect((await send(world, form.id, deep)).answer, `${depth} deep`).to.include({ state: 'FAILED' });
      }
    });

    it('answer with the result when synchronous, and with 202 when that takes longer', async () => {
      const hook = await create({ auth: NONE, synchronous: true, wait: { seconds: 20, nanos: 0 } });
      const sent = send(world, hook.id, '{"n": 1}');
      const run = await until('the execution', async () => (await runsOf(hook))[0]);
      await executions.cancelExecution({ id: run.id, reason: '' });
      expect(await sent).to.deep.include({ code: 200 });
      expect((await sent).answer).to.include({ state: 'CANCELLED', executionId: run.id });
      await hooks.updateHook({ id: hook.id, hook: Hook.fromPartial({ wait: { seconds: 0, nanos: 1e8 } }), updateMask: undefined });
      expect(await send(world, hook.id, '{"n": 2}')).to.deep.include({ code: 202 });
      const updated = await hooks.updateHook({ id: hook.id, hook: Hook.fromPartial({ synchronous: false }), updateMask: undefined });
      expect(updated).to.include({ synchronous: false, version: 3 });
    });

    it('say why when executions refuse: in the log, and to a sender that waits', async () => {
      const hook = await create({ auth: NONE, automationId: newId('automation') });
      const { code, answer } = await send(world, hook.id, '{}');
      expect([code, answer.state]).to.deep.equal([202, 'FAILED']);
      expect((await listed(hook))[0]?.error).to.match(/^RESOURCE_NOT_FOUND: /);
      await hooks.updateHook({ id: hook.id, hook: Hook.fromPartial({ synchronous: true }), updateMask: undefined });
      expect(await caught(send(world, hook.id, '{}'))).to.include({ code: status.NOT_FOUND });
      await hooks.updateHook({ id: hook.id, hook: Hook.fromPartial({ automationId }), updateMask: undefined });
      const again = { hookId: hook.id, id: answer.deliveryId, requestId: newId('event') };
      const redelivered = await deliveries.redeliverHookDelivery(again);
      expect(redelivered).to.include({ state: State.DELIVERED, redeliveryOf: answer.deliveryId });
      expect((await deliveries.redeliverHookDelivery(again)).id, 'the same request').to.equal(redelivered.id);
      expect(await runsOf(hook)).to.have.length(1);
    });

    it('are listed page by page, and forgotten by age', async () => {
      const hook = await create({ auth: NONE, filter: 'false' });
      for (let n = 0; n < 5; n += 1) await send(world, hook.id, `{"n": ${n}}`);
      const seen: string[] = [];
      for (let pageToken = ''; ; ) {
        const page = await deliveries.listHookDeliveries(
          ListHookDeliveriesRequest.fromPartial({ hookId: hook.id, pageSize: 2, pageToken }),
        );
        seen.push(...page.deliveries.map(({ id }) => id));
        pageToken = page.nextPageToken;
        if (pageToken === '') break;
      }
      expect(seen)
        .to.deep.equal([...seen].sort().reverse())
        .and.have.length(5);
      const db = world.db('webhooks');
      const old = db.raw('utc_timestamp(6) - interval 31 day');
      await db('hook_deliveries')
        .where({ id: toBytes('delivery', seen[0] ?? '') })
        .update({ receive_time: old });
      await sweep(db, 30);
      expect((await listed(hook)).map(({ id }) => id)).to.deep.equal(seen.slice(1));
      const stranger = world.as(world.person(), HookDeliveryServiceService);
      expect(await caught(stranger.getHookDelivery({ hookId: hook.id, id: seen[1] ?? '' }))).to.include({ code: status.NOT_FOUND });
      expect(await caught(stranger.listHookDeliveries(ListHookDeliveriesRequest.fromPartial({ hookId: hook.id })))).to.include({
        code: status.NOT_FOUND,
      });
    });
  });

  describe('while executions are away', () => {
    it('keep what they accept and start it later, once', async () => {
      const port = await freePort();
      const far = await startWorld({ targets: ['executions'], modules, env: { MILLRACE_GRPC_ADDRESS: `127.0.0.1:${port}` } });
      const { MILLRACE_SERVICE_KEYS = '', MILLRACE_SERVICE_JWKS = '' } = far.env;
      const env = { MILLRACE_SERVICE_KEYS, MILLRACE_SERVICE_JWKS, MILLRACE_EXECUTIONS_URL: `127.0.0.1:${port}` };
      const near = await startWorld({ targets: ['webhooks'], modules, env });
      try {
        await apply(automationId, far, person);
        const hook = await near
          .as(person, HookServiceService)
          .createHook(CreateHookRequest.fromPartial({ hook: { name: 'a', automationId, auth: NONE, deliveryId: 'x-id' } as Hook }));
        await far.restart([]).catch(() => undefined); // nobody answers there
        const { code, answer } = await send(near, hook.id, '{"n": 1}', { 'x-id': 'one' });
        expect([code, answer.state]).to.deep.equal([202, 'RETRYING']);
        const log = near.as(person, HookDeliveryServiceService);
        const read = () => log.getHookDelivery({ hookId: hook.id, id: answer.deliveryId });
        expect(await read()).to.include({ state: State.RETRYING, attemptCount: 1 });
        await far.restart(['executions']);
        await until('the execution', async () => (await read()).state === State.DELIVERED, 30_000);
        const { executions: made } = await far.as(person, ExecutionServiceService).listExecutions(ListExecutionsRequest.fromPartial({}));
        expect(made.map(({ id }) => id)).to.deep.equal([(await read()).executionId]);
      } finally {
        await near.stop();
        await far.stop();
      }
    });
  });

  describe('whose process is killed', () => {
    const places = {
      'webhooks.kept': 'before its execution was made',
      'webhooks.created': 'after its execution was made, before that was noted',
    };
    for (const [place, when] of Object.entries(places)) {
      it(`${when} still make one execution of what was kept`, async () => {
        const hook = await create({ auth: NONE, deliveryId: 'x-id' });
        const grpcAddress = `127.0.0.1:${await freePort()}`;
        const near = {
          MILLRACE_GRPC_ADDRESS: grpcAddress,
          MILLRACE_EXECUTIONS_URL: world.grpcAddress,
          MILLRACE_FAILPOINT: `${place}:exit`,
        };
        const doomed = spawn(process.execPath, ['services/main.ts', '--target=webhooks'], {
          env: { ...process.env, ...world.env, ...near },
          stdio: 'ignore',
        });
        const gone = new Promise((resolve) => doomed.once('exit', (_, signal) => resolve(signal)));
        const call = (at: { grpcAddress: string }) => send(at, hook.id, '{"n": 1}', { 'x-id': 'one' });
        await until('its death', async () => (await caught(call({ grpcAddress }))) && doomed.signalCode !== null, 30_000);
        expect(await gone).to.equal('SIGKILL');
        expect(await runsOf(hook)).to.have.length(place === 'webhooks.kept' ? 0 : 1);
        expect((await call(world)).answer, 'the sender tries again').to.include({ state: 'PENDING' });
        const db = world.db('webhooks');
        await db('hook_deliveries')
          .where({ hook: toBytes('hook', hook.id) })
          .update({ next_attempt_time: db.raw('utc_timestamp(6)') });
        await until('the execution', async () => (await listed(hook))[0]?.state === State.DELIVERED);
        expect(await runsOf(hook)).to.have.length(1);
        expect(await listed(hook)).to.have.length(1);
        expect((await listed(hook))[0]).to.include({ attemptCount: 2 });
      });
    }
  });

  it('run what was sent, each once, out of a shuffled heap of repeated and tampered requests', async () => {
    const hook = await create();
    const count = 80;
    const heap = Array.from({ length: count }, (_, n) => n).flatMap((n) => {
      const [id, body] = [`msg_${n}`, `{"n": ${n}}`];
      const good = standard(hook.secret, id, body);
      const tampered = n % 10 === 0 ? [{ body: `{"n": ${n + 1000}}`, headers: good }] : [];
      return [...Array.from({ length: 1 + (n % 5) }, () => ({ body, headers: good })), ...tampered];
    });
    const shuffled = heap.map((one) => ({ one, at: Math.random() })).sort((a, b) => a.at - b.at);
    const answers = await Promise.all(shuffled.map(({ one }) => caught(send(world, hook.id, one.body, one.headers))));
    const refused = answers.filter((answer) => (answer as { reason?: string }).reason === 'SIGNATURE_INVALID');
    const taken = answers.filter((answer) => (answer as { code?: number }).code === 202);
    expect([refused.length, taken.length]).to.deep.equal([count / 10, heap.length - count / 10]);
    await until('all of them', async () => (await listed(hook, [State.DELIVERED])).length === Math.min(50, count));
    const runs = await runsOf(hook);
    const inputs = await Promise.all(runs.map(async ({ id }) => (await executions.getExecution({ id })).input?.n));
    expect(inputs.sort((a, b) => a - b)).to.deep.equal(Array.from({ length: count }, (_, n) => n));
  });
});
