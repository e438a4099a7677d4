import { expect } from 'chai';
import { Secret } from '#gen/millrace/automations/v1/secret.ts';
import { SecretServiceService } from '#gen/millrace/automations/v1/secret_service.ts';
import { AutomationSpec_Network } from '#gen/millrace/automations/v1/spec.ts';
import { Variable } from '#gen/millrace/automations/v1/variable.ts';
import { VariableServiceService } from '#gen/millrace/automations/v1/variable_service.ts';
import { openBus } from '#platform/bus.ts';
import type { Db } from '#platform/db.ts';
import { fromBytes, newBytes, toBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { module as automations } from '../services/automations/module.ts';
import { SHORT } from '../services/executions/dispatcher/fixture.test.ts';
import { module as dispatcher } from '../services/executions/dispatcher/module.ts';
import { type Peer, startPeer } from '../services/executions/dispatcher/peer.test.ts';
import { accept, publish, schemaOnly } from '../services/executions/engine/fixture.test.ts';
import * as notices from '../services/executions/engine/notices.ts';
import { ring } from '../services/executions/engine/tickets.ts';
import { type Person, startWorld, until, type World } from './world.ts';

const FINAL = ['SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT'];

// With a server that only speaks the session: what it is sent can be looked at.
describe('what an execution gets of secrets and variables', function () {
  this.timeout(60_000);
  let world: World;
  let db: Db;
  let bus: ReturnType<typeof openBus>;
  let peer: Peer;
  let person: Person;

  before(async () => {
    const nowhere = { MILLRACE_RUNNER_URL: '127.0.0.1:1' };
    const modules = [schemaOnly, dispatcher, automations];
    world = await startWorld({ targets: ['executions', 'dispatcher', 'automations'], modules, env: { ...SHORT, ...nowhere } });
    db = world.db('executions');
    person = world.person();
    const lane = { queue: 'q', selector: 'any', fairness_key: '', state: 'ACTIVE', weight: 1 };
    await db('lanes').insert({ ...lane, lane: 1, workspace: newBytes() });
    bus = openBus(world.config, openLog('silent'));
    await bus.connection();
    peer = await startPeer({ slots: 1 });
    await peer.register(db);
    bus.notify(notices.servers);
    await until('the session to open', () => peer.epochs.length > 0);
    const secret = Secret.fromPartial({ name: 'TOKEN', value: 'a-secret-value' });
    await secrets().createSecret({ secret, requestId: '' });
    await world
      .as(person, VariableServiceService)
      .createVariable({ variable: Variable.fromPartial({ name: 'LIMIT', value: [5] }), requestId: '' });
  });
  after(async () => {
    await peer?.vanish();
    await bus?.stop();
    await world?.stop();
  });

  const secrets = () => world.as(person, SecretServiceService);
  const rotate = async (value: string) => {
    const [found] = (await secrets().listSecrets({ name: 'TOKEN', pageSize: 1, pageToken: '' })).secrets;
    return secrets().rotateSecret({ id: found?.id ?? '', value });
  };
  const run = async (automation: Buffer, count = 1) => {
    const workspace = toBytes('workspace', person.workspace);
    const ids = await accept(
      db,
      Array.from({ length: count }, () => ({ automation, workspace })),
    );
    ring(bus, [1]);
    const rows = [];
    for (const id of ids) {
      rows.push(
        await until('it to end', async () => {
          const row = await db('executions').where({ id }).first();
          return FINAL.includes(row.state) ? row : undefined;
        }),
      );
    }
    const sent = ids.map((id) => peer.jobs.filter(({ job }) => job.executionId === fromBytes('execution', id)).map(({ job }) => job));
    return rows.map((row, index) => ({ row, jobs: sent[index] ?? [] }));
  };

  it('is in the job, and its versions in the key by which jobs share a process', async () => {
    const automation = await publish(db, { secrets: ['TOKEN'], variables: ['LIMIT'] });
    const plain = await publish(db, {});
    const found = [...(await run(automation, 3)), ...(await run(plain))];
    for (const { row, jobs } of found) expect([row.state, jobs.length]).to.deep.equal(['SUCCEEDED', 1]);
    const [first, second, , without] = found.map(({ jobs }) => jobs[0]);
    expect(first?.secrets).to.deep.equal([{ name: 'TOKEN', value: 'a-secret-value' }]);
    expect(first?.variables).to.deep.equal([{ name: 'LIMIT', valueJson: '[5]' }]);
    expect([without?.secrets, without?.variables, without?.reuseKey.split('.').length]).to.deep.equal([[], [], 3]);
    expect(second?.reuseKey).to.equal(first?.reuseKey);
    await rotate('another-value');
    const [{ jobs: after } = { jobs: [] }] = await run(automation);
    expect(after[0]?.secrets).to.deep.equal([{ name: 'TOKEN', value: 'another-value' }]);
    expect(after[0]?.reuseKey.split('.').slice(0, 3)).to.deep.equal(first?.reuseKey.split('.').slice(0, 3));
    expect(after[0]?.reuseKey).to.not.equal(first?.reuseKey);
  });

  it('goes with the egress policy where a revision asks for both', async () => {
    const automation = await publish(db, { secrets: ['TOKEN'], network: AutomationSpec_Network.EGRESS });
    const [{ row, jobs } = expect.fail('none')] = await run(automation);
    expect([row.state, jobs.length, jobs[0]?.secrets.length, jobs[0]?.egress !== undefined]).to.deep.equal(['SUCCEEDED', 1, 1, true]);
  });

  it('ends an attempt before its script starts, once, when something is not there; the server’s place is free again', async () => {
    const automation = await publish(db, { secrets: ['TOKEN', 'GONE'], variables: ['NONE'] });
    for (const { row, jobs } of await run(automation, 3)) {
      const error = typeof row.error === 'string' ? JSON.parse(row.error) : row.error;
      expect([row.state, jobs.length, row.attempt_count]).to.deep.equal(['FAILED', 0, 1]);
      expect(error).to.include({
        type: 'SecretUnavailable',
        message: 'It was not started. The workspace has no secret GONE. The workspace has no variable NONE.',
        retryable: false,
      });
    }
    const [after] = await run(await publish(db, { secrets: ['TOKEN'] }));
    expect(after?.row.state).to.equal('SUCCEEDED');
  });

  it('never stands in the database of executions, nor in a log', async () => {
    const tables = await db.raw('SHOW TABLES');
    for (const row of tables[0]) {
      const [table] = Object.values(row) as string[];
      const text = JSON.stringify(await db(table ?? '').select(), (_, value) =>
        value?.type === 'Buffer' ? Buffer.from(value.data).toString('latin1') : value,
      );
      expect([table, text.includes('a-secret-value') || text.includes('another-value')]).to.deep.equal([table, false]);
    }
    expect(world.logged()).to.include('ready').and.not.include('a-secret-value').and.not.include('another-value');
  });
});
