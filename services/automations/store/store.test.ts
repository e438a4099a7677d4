import { expect } from 'chai';
import { Automation, AutomationRevision } from '#gen/millrace/automations/v1/automation.ts';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import type { Db } from '#platform/db.ts';
import { Fault } from '#platform/errors.ts';
import { newId, toBytes } from '#platform/id.ts';
import { migrate, rollback } from '#platform/migrate.ts';
import { startWorld, type World } from '../../../tests/world.ts';
import * as automation from '../automation.ts';
import * as system from '../automation-system.ts';
import { module } from '../module.ts';
import * as specs from '../spec.ts';
import * as store from './automations.ts';
import * as projection from './projection.ts';
import * as revisions from './revisions.ts';

describe('automations in the database', () => {
  let world: World;
  let db: Db;
  let workspace = '';
  before(async () => {
    const idle = { name: 'stranger', start: async () => async () => undefined }; // the schema alone, without workers
    world = await startWorld({ targets: ['stranger'], modules: [module, idle] });
    db = world.db('automations');
  });
  after(() => world?.stop());
  beforeEach(() => {
    workspace = newId('workspace');
  });

  const user = newId('user');
  async function insert(name = 'Invoices', into = workspace): Promise<Automation> {
    const made = automation.accept(Automation.fromPartial({ name, labels: { team: 'a' } }), user, newId('automation'), new Date());
    await db.transaction((tx) => store.insert(tx, into, made));
    return made;
  }
  const fill = (source: string) => specs.fill(AutomationSpec.fromPartial({ source }), { problems: [], inputSchema: { title: source } });
  async function revise(before: Automation, source = `source ${before.latestRevision + 1}`): Promise<Automation> {
    const after = automation.revised(before, new Date());
    await db.transaction(async (tx) => {
      const revision = {
        automationId: before.id,
        number: after.latestRevision,
        spec: fill(source),
        note: 'n',
        sourceSha256: specs.sourceHash(source),
      };
      await revisions.insert(tx, workspace, { ...revision, creatorId: user, createTime: new Date() });
      await store.save(tx, workspace, before, after);
    });
    return after;
  }
  async function publish(before: Automation, revision: number): Promise<Automation> {
    const after = automation.published(before, revision, new Date());
    await db.transaction(async (tx) => {
      const present = await revisions.publication(tx, workspace, before.id);
      await revisions.publish(tx, workspace, before.id, automation.publication(present, revision), user, new Date());
      await store.save(tx, workspace, before, after);
    });
    return after;
  }

  it('keeps every field, with the schemas of what is published', async () => {
    const made = await insert();
    expect(await store.get(db, workspace, made.id)).to.deep.equal(made);
    const twice = await revise(await revise(made));
    const published = await publish(twice, 1);
    expect(await store.get(db, workspace, made.id)).to.deep.equal({ ...published, inputSchema: { title: 'source 1' } });
    expect(await db.transaction((tx) => store.lock(tx, workspace, made.id))).to.deep.equal(published);
  });

  it('keeps revisions as they were written, and lists them without their source', async () => {
    const made = await publish(await revise(await revise(await insert())), 1);
    const first = await revisions.get(db, workspace, made.id, 1);
    expect(first).to.include({ number: 1, note: 'n', creatorId: user, sourceSha256: specs.sourceHash('source 1') });
    expect(first.spec).to.deep.equal(fill('source 1'));
    expect(first.publishTime).to.be.instanceOf(Date);
    const listed = await revisions.list(db, workspace, made.id, undefined, 10);
    expect(listed.map(({ number, spec, publishTime }) => [number, spec?.source, publishTime !== undefined])).to.deep.equal([
      [2, '', false],
      [1, '', true],
    ]); // prettier-ignore
    expect((await revisions.list(db, workspace, made.id, 2, 10)).map(({ number }) => number)).to.deep.equal([1]);
    const encoded = AutomationRevision.encode(first).finish();
    expect(AutomationRevision.decode(encoded).spec).to.deep.equal(fill('source 1'));
  });

  it('has one automation of a name in a workspace, letter case aside, and gives the name of a deleted one free', async () => {
    const made = await insert('Résumé');
    const taken = async (name: string) => (await insert(name).catch((error) => error))?.reason;
    expect(await taken('RÉSUMÉ')).to.equal('NAME_TAKEN');
    expect(await taken('re\u0301sume\u0301')).to.equal('NAME_TAKEN');
    const plain = await insert('Resume');
    await insert('Résumé', newId('workspace'));
    const renamed = automation.update(plain, { ...plain, name: 'résumé' }, ['name'], new Date());
    expect((await db.transaction((tx) => store.save(tx, workspace, plain, renamed)).catch((error) => error)).reason).to.equal('NAME_TAKEN');
    await db.transaction((tx) => store.remove(tx, workspace, made, new Date()));
    await insert('Résumé');
  });

  it('refuses to save over a version that it has not read', async () => {
    const made = await insert();
    const save = (name: string) =>
      db.transaction((tx) => store.save(tx, workspace, made, automation.update(made, { ...made, name }, ['name'], new Date())));
    await save('first');
    expect((await save('second').catch((error) => error)).reason).to.equal('CONFLICT');
    expect((await store.get(db, workspace, made.id)).name).to.equal('first');
  });

  it('lists by name, page by page, what holds a text', async () => {
    for (const name of ['b', 'A', '50% off', 'C_1', 'c 2', 'ä']) await insert(name);
    const names: string[] = [];
    for (let after: store.Position | undefined; ; ) {
      const page = await store.list(db, workspace, '', after, 2);
      names.push(...page.map(({ name }) => name));
      const last = page.at(-1);
      if (!last || page.length < 2) break;
      after = { name: last.name, id: last.id };
    }
    expect(names).to.have.members(['50% off', 'A', 'ä', 'b', 'c 2', 'C_1']).and.have.length(6);
    const found = async (text: string) => (await store.list(db, workspace, text, undefined, 10)).map(({ name }) => name);
    expect(await found('c')).to.deep.equal(['c 2', 'C_1']);
    expect(await found('%')).to.deep.equal(['50% off']);
    expect(await found('c_')).to.deep.equal(['C_1']);
    expect(await found('\\')).to.deep.equal([]);
  });

  it('answers and touches nothing of another workspace', async () => {
    const made = await publish(await revise(await insert()), 1);
    const other = newId('workspace');
    const refused = async (act: () => Promise<unknown>) =>
      expect(await act().catch((error) => error))
        .to.be.instanceOf(Fault)
        .and.include({ code: 5 });
    await refused(() => store.get(db, other, made.id));
    await refused(() => db.transaction((tx) => store.lock(tx, other, made.id)));
    await refused(() => revisions.get(db, other, made.id, 1));
    expect(await store.list(db, other, '', undefined, 10)).to.deep.equal([]);
    expect(await revisions.list(db, other, made.id, undefined, 10)).to.deep.equal([]);
    expect(await projection.next(db, other, made.id)).to.equal(undefined);
    await db.transaction(async (tx) => {
      expect(await revisions.publication(tx, other, made.id)).to.equal(undefined);
      await store.remove(tx, other, made, new Date());
    });
    const renamed = { ...made, name: 'mine', version: made.version + 1 };
    expect((await db.transaction((tx) => store.save(tx, other, made, renamed)).catch((error) => error)).reason).to.equal('CONFLICT');
    expect((await store.get(db, workspace, made.id)).name).to.equal('Invoices');
    expect((await revisions.get(db, workspace, made.id, 1)).number).to.equal(1);
  });

  describe('what executions do not know', () => {
    const next = (id: string) => projection.next(db, workspace, id);
    const isDue = async (id: string): Promise<boolean> => {
      await db('automations')
        .whereNotNull('apply_time')
        .update({ apply_time: db.raw('utc_timestamp(6) - interval 1 second') });
      return (await system.claimUntold(db, 1000)).some((one) => one.workspace === workspace && one.id === id);
    };

    it('is told with all that is new, and never again once they know', async () => {
      const made = await publish(await revise(await revise(await insert())), 2);
      const told = await next(made.id);
      expect(told).to.deep.include({ automationId: made.id, workspaceId: workspace, name: 'Invoices', version: 4, publishedRevision: 2 });
      expect(told).to.include({ disabled: false, deleted: false });
      expect(told?.revisions, 'what is published comes first').to.deep.equal([
        { number: 2, spec: fill('source 2') },
        { number: 1, spec: fill('source 1') },
      ]);
      expect(await isDue(made.id)).to.equal(true);
      if (told) await projection.known(db, workspace, told);
      expect(await next(made.id)).to.equal(undefined);
      expect(await isDue(made.id)).to.equal(false);
      const updated = automation.update(made, { ...made, disabled: true }, ['disabled'], new Date());
      await db.transaction((tx) => store.save(tx, workspace, made, updated));
      expect(await next(made.id)).to.deep.include({ version: 5, disabled: true, revisions: [] });
      expect(await isDue(made.id)).to.equal(true);
    });

    it('stays due while there is more than was told, or something newer', async () => {
      let made = await insert();
      for (let number = 1; number <= 6; number += 1) made = await revise(made);
      const first = await next(made.id);
      expect(first?.revisions.map(({ number }) => number)).to.deep.equal([1, 2, 3, 4]);
      if (first) await projection.known(db, workspace, first);
      expect(await isDue(made.id), 'two revisions are left').to.equal(true);
      const second = await next(made.id);
      expect(second?.revisions.map(({ number }) => number)).to.deep.equal([5, 6]);
      await publish(made, 6); // while they are told
      if (second) await projection.known(db, workspace, second);
      expect(await isDue(made.id), 'the publication is left').to.equal(true);
      expect(await next(made.id)).to.deep.include({ publishedRevision: 6, revisions: [] });
    });

    it('is claimed by one process at a time', async () => {
      const made = await insert();
      await db('automations')
        .whereNotNull('apply_time')
        .update({ apply_time: db.raw('utc_timestamp(6) - interval 1 second') });
      const all = await Promise.all([system.claimUntold(db, 1000), system.claimUntold(db, 1000)]);
      expect(all.flat().filter(({ id }) => id === made.id)).to.have.length(1);
    });

    it('includes that it was deleted; after that nothing is left of it', async () => {
      const made = await publish(await revise(await insert()), 1);
      await db.transaction((tx) => store.remove(tx, workspace, made, new Date()));
      expect((await store.get(db, workspace, made.id).catch((error) => error)).reason).to.equal('RESOURCE_NOT_FOUND');
      expect(await store.isRemoved(db, workspace, made.id)).to.equal(true);
      const told = await next(made.id);
      expect(told).to.deep.include({ deleted: true, version: made.version + 1, revisions: [] });
      expect(await isDue(made.id)).to.equal(true);
      if (told) await projection.known(db, workspace, told);
      expect(await store.isRemoved(db, workspace, made.id)).to.equal(false);
      for (const table of ['automations', 'revisions', 'publications']) {
        expect(
          await db(table)
            .where({ workspace: toBytes('workspace', workspace) })
            .select('workspace'),
          table,
        ).to.deep.equal([]);
      }
    });
  });

  it('can be taken back, step by step', async () => {
    const config = { ...world.config, databasePrefix: `${world.config.databasePrefix}_down` };
    const area = { name: 'automations', migrations: module.migrations as URL };
    const up = await migrate(config, area);
    for (const name of up.toReversed()) expect(await rollback(config, area)).to.deep.equal([name]);
    expect(await migrate(config, area), 'and forth').to.deep.equal(up);
  });
});
