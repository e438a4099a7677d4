import { expect } from 'chai';
import fc from 'fast-check';
import { Task, Task_State } from '#gen/millrace/tasks/v1/task.ts';
import type { Db } from '#platform/db.ts';
import { Fault } from '#platform/errors.ts';
import { newId, toBytes } from '#platform/id.ts';
import { migrate, rollback } from '#platform/migrate.ts';
import { often } from '../../../tests/long.ts';
import { startWorld, type World } from '../../../tests/world.ts';
import { module } from '../module.ts';
import * as task from '../task.ts';
import * as system from '../task-system.ts';
import * as comments from './comments.ts';
import * as lists from './list.ts';
import * as runs from './runs.ts';
import * as tasks from './tasks.ts';

describe('tasks in the database', () => {
  let world: World;
  let db: Db;
  let workspace = '';
  before(async () => {
    const idle = { name: 'stranger', start: async () => async () => undefined }; // the schema alone: no worker takes what a test made due
    world = await startWorld({ targets: ['stranger'], modules: [module, idle] });
    db = world.db('tasks');
  });
  after(() => world?.stop());
  beforeEach(() => {
    workspace = newId('workspace');
  });

  const user = newId('user');
  const everything = { states: [], assigneeId: '', text: '' };
  const draft = (fields: Partial<Task> = {}): Task =>
    task.accept(Task.fromPartial({ title: 'task', ...fields }), user, newId('task'), new Date());
  async function insert(fields: Partial<Task> = {}, into = workspace): Promise<Task> {
    const made = { ...draft(fields), ...fields };
    await db.transaction((tx) => tasks.insert(tx, into, made));
    return made;
  }
  const titles = (found: readonly Task[]) => found.map(({ title }) => title);

  it('keeps every field as it was written', async () => {
    const full = await insert({
      description: 'emoji 🥛 and \u0000',
      assigneeId: user,
      dueTime: new Date('9999-12-31T23:59:59.999Z'),
      automationId: newId('automation'),
      input: { b: 1.5, a: [null, 'x', { deep: true }] },
    });
    expect(await tasks.get(db, workspace, full.id)).to.deep.equal(full);
    expect(Object.keys((await tasks.get(db, workspace, full.id)).input ?? {}), 'the order of keys').to.deep.equal(['b', 'a']);
    const empty = await insert();
    expect(await tasks.get(db, workspace, empty.id)).to.deep.equal(empty);
  });

  it('answers and touches nothing of another workspace', async () => {
    const made = await insert({ title: 'secret plan' });
    const other = newId('workspace');
    const comment = task.acceptComment('hush', made.id, user, newId('comment'), new Date());
    await db.transaction((tx) => comments.insert(tx, workspace, comment));
    const refused = async (act: () => Promise<unknown>) =>
      expect(await act().catch((error) => error))
        .to.be.instanceOf(Fault)
        .and.include({ code: 5 });
    await refused(() => tasks.get(db, other, made.id));
    await refused(() => db.transaction((tx) => tasks.lock(tx, other, made.id)));
    await refused(() => comments.get(db, other, made.id, comment.id));
    expect(await tasks.find(db, other, [made.id])).to.deep.equal([]);
    expect(await comments.list(db, other, made.id, undefined, 10)).to.deep.equal([]);
    expect(await lists.list(db, other, { ...everything, text: 'secret' }, lists.orderOf(''), undefined, 10)).to.deep.equal([]);
    expect([...(await lists.changedWithin(db, other, 60)).keys()]).to.deep.equal([]);
    await db.transaction((tx) => tasks.remove(tx, other, made.id, new Date()));
    const renamed = { ...made, title: 'public plan', version: 2 };
    await db.transaction((tx) => tasks.save(tx, other, made, renamed)).catch(() => undefined);
    expect(await tasks.get(db, workspace, made.id)).to.deep.equal(made);
  });

  it('refuses to save over a version that it has not read', async () => {
    const made = await insert();
    const next = task.start(made, new Date());
    await db.transaction((tx) => tasks.save(tx, workspace, made, next));
    const fault = await db.transaction((tx) => tasks.save(tx, workspace, made, task.cancel(made, new Date()))).catch((error) => error);
    expect(fault).to.include({ reason: 'CONFLICT' });
    expect((await tasks.get(db, workspace, made.id)).state).to.equal(Task_State.IN_PROGRESS);
  });

  it('removes a task with its comments, runs and words, and remembers that for a while', async () => {
    const made = await insert({ title: 'ephemeral' });
    await db.transaction((tx) => comments.insert(tx, workspace, task.acceptComment('bye', made.id, user, newId('comment'), new Date())));
    const run = { executionId: newId('execution'), status: 'QUEUED', output: undefined, logs: '', error: '' };
    await db.transaction((tx) => runs.insert(tx, workspace, made.id, run, user, new Date()));
    await db.transaction((tx) => tasks.remove(tx, workspace, made.id, new Date()));
    for (const table of ['task_comments', 'task_runs', 'tasks_search', 'tasks']) {
      expect(
        await db(table)
          .where({ workspace: toBytes('workspace', workspace) })
          .select('workspace'),
        table,
      ).to.deep.equal([]);
    }
    expect(await lists.changedWithin(db, workspace, 60)).to.deep.equal(new Map([[made.id, undefined]]));
    await system.forgetDeletions(db);
    expect((await lists.changedWithin(db, workspace, 60)).size, 'not yet forgotten').to.equal(1);
  });

  describe('listed', () => {
    it('by state, by assignee, and those of nobody', async () => {
      await insert({ title: 'a', state: Task_State.IN_PROGRESS, assigneeId: user, createTime: new Date(1000) });
      await insert({ title: 'b', state: Task_State.COMPLETED, createTime: new Date(2000) });
      await insert({ title: 'c', createTime: new Date(3000) }); // two that are made within a millisecond stand in any order
      const list = async (filter: Partial<lists.Filter>) =>
        titles(await lists.list(db, workspace, { ...everything, ...filter }, lists.orderOf('create_time'), undefined, 10));
      expect(await list({})).to.deep.equal(['a', 'b', 'c']);
      expect(await list({ states: [Task_State.COMPLETED, Task_State.PENDING] })).to.deep.equal(['b', 'c']);
      expect(await list({ assigneeId: user })).to.deep.equal(['a']);
      expect(await list({ assigneeId: '-' })).to.deep.equal(['b', 'c']);
      expect(await list({ assigneeId: user, states: [Task_State.PENDING] })).to.deep.equal([]);
    });

    it('by words of title and description, also short ones and stop words, and by the words of today', async () => {
      const made = await insert({ title: 'The café', description: 'to be or not, v2' });
      await insert({ title: 'Nothing like it', description: 'at all' });
      const find = async (text: string) =>
        titles(await lists.list(db, workspace, { ...everything, text }, lists.orderOf(''), undefined, 10));
      for (const text of ['the cafe', 'CAFÉ', 'to be', 'v2', 'not the', '"or"']) expect(await find(text), text).to.deep.equal(['The café']);
      for (const text of ['cafe nothing', 'caf', '()', 'v3']) expect(await find(text), text).to.deep.equal([]);
      await db.transaction((tx) =>
        tasks.save(tx, workspace, made, task.update(made, { ...made, title: 'The bar' }, ['title'], new Date())),
      );
      expect(await find('cafe')).to.deep.equal([]);
      expect(await find('bar v2')).to.deep.equal(['The bar']);
    });

    it('without what may be large', async () => {
      await insert({ input: { n: 1 } });
      const [found] = await lists.list(db, workspace, everything, lists.orderOf(''), undefined, 10);
      expect(found?.input).to.equal(undefined);
    });

    it('page by page: every task once and in order, for each order and size, ties and missing due times included', async () => {
      const times = [undefined, 1, 2, 3].map((second) => second && new Date(Date.UTC(2026, 0, 1, 0, 0, second)));
      const dated = fc.record({
        dueTime: fc.constantFrom(...times),
        createTime: fc.constantFrom(...times.slice(1)),
        updateTime: fc.constantFrom(...times.slice(1)),
      });
      const orders = ['', 'create_time', 'create_time desc', 'update_time', 'update_time desc', 'due_time', 'due_time desc'];
      await fc.assert(
        fc.asyncProperty(
          fc.array(dated, { maxLength: 12 }),
          fc.constantFrom(...orders),
          fc.integer({ min: 1, max: 5 }),
          async (all, orderBy, size) => {
            const into = newId('workspace');
            const made: Task[] = [];
            for (const [index, dates] of all.entries()) made.push(await insert({ ...dates, title: `${index}` } as Partial<Task>, into));
            const order = lists.orderOf(orderBy);
            const seen: Task[] = [];
            for (let after: lists.Position | undefined, pages = 0; pages <= all.length; pages += 1) {
              const page = await lists.list(db, into, everything, order, after, size);
              seen.push(...page);
              const last = page.at(-1);
              if (!last || page.length < size) break;
              after = JSON.parse(JSON.stringify(lists.positionOf(last, order)));
            }
            const sign = order.isDescending ? -1 : 1;
            const at = (one: Task) => lists.positionOf(one, order).at;
            const sorted = made.toSorted((a, b) => {
              if ((at(a) === null) !== (at(b) === null)) return at(a) === null ? 1 : -1;
              return sign * ((at(a) ?? 0) - (at(b) ?? 0) || (a.id < b.id ? -1 : 1));
            });
            expect(titles(seen)).to.deep.equal(titles(sorted));
          },
        ),
        often('pages of tasks in any order', 25),
      );
    });
  });

  describe('their runs', () => {
    const started = async (): Promise<{ made: Task; executionId: string }> => {
      const made = await insert();
      const executionId = newId('execution');
      const run = { executionId, status: 'QUEUED', output: undefined, logs: '', error: '' };
      const keep = () => db.transaction((tx) => runs.insert(tx, workspace, made.id, run, user, new Date()));
      expect(await keep()).to.equal(true);
      expect(await keep(), 'once').to.equal(false);
      await db.transaction((tx) => tasks.save(tx, workspace, made, task.runAccepted(made, run, new Date())));
      return { made, executionId };
    };

    it('are read with their task, null as an output included', async () => {
      const { made, executionId } = await started();
      for (const output of [null, 0, 'text', { a: [1] }]) {
        const run = { executionId, status: 'SUCCEEDED', output, logs: 'line\n', error: '' };
        await db.transaction((tx) => runs.save(tx, workspace, run, false));
        expect((await tasks.get(db, workspace, made.id)).run).to.deep.equal(run);
      }
    });

    it('are due when an event says so, are claimed once, and never again once settled', async () => {
      const { made, executionId } = await started();
      const claimed = async () => (await system.claimDueRuns(db, 100)).filter((run) => run.executionId === executionId);
      const other = newId('execution');
      expect(await db.transaction((tx) => system.checkNow(tx, [executionId, other]))).to.equal(1);
      const both = await Promise.all([claimed(), claimed()]);
      expect(both.flat()).to.deep.equal([{ workspace, taskId: made.id, executionId, userId: user }]);
      const run = { executionId, status: 'FAILED', output: undefined, logs: '', error: 'ValueError' };
      await db.transaction((tx) => runs.save(tx, workspace, run, true));
      expect(await db.transaction((tx) => system.checkNow(tx, [executionId]))).to.equal(0);
    });

    it('are started by one user at a time, who may repeat the call', async () => {
      const made = await insert();
      const other = newId('user');
      const withClaim = (userId: string, work: () => Promise<unknown>) => runs.withClaim(db, workspace, made.id, userId, work);
      await withClaim(user, async () => {
        expect(await withClaim(other, async () => 'ran').catch((error) => error.reason)).to.equal('CONFLICT');
      });
      expect(await withClaim(other, async () => 'ran')).to.equal('ran');
      await withClaim(user, () => Promise.reject(new Error('failed'))).catch(() => undefined);
      expect(await withClaim(other, async () => 'ran'), 'released by a failure').to.equal('ran');
    });
  });

  it('can be taken back, step by step', async () => {
    const config = { ...world.config, databasePrefix: `${world.config.databasePrefix}_down` };
    const area = { name: 'tasks', migrations: module.migrations as URL };
    const up = await migrate(config, area);
    for (const name of up.toReversed()) expect(await rollback(config, area)).to.deep.equal([name]);
    expect(await migrate(config, area), 'and forth').to.deep.equal(up);
  });
});
