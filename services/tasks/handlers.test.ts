import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { Task, Task_Priority, Task_State } from '#gen/millrace/tasks/v1/task.ts';
import { TaskEvent } from '#gen/millrace/tasks/v1/task_event.ts';
import { CreateTaskRequest, ListTasksRequest, TaskServiceService } from '#gen/millrace/tasks/v1/task_service.ts';
import type { ClientOf } from '#platform/client.ts';
import { newId } from '#platform/id.ts';
import { type Listener, listen } from '../../tests/events.ts';
import { refused } from '../../tests/refusal.ts';
import { type Person, startWorld, until, type World } from '../../tests/world.ts';
import { module } from './module.ts';

describe('TaskService', () => {
  let world: World;
  let person: Person;
  let service: ClientOf<TaskServiceService>;
  let published: Listener<TaskEvent>;

  before(async () => {
    world = await startWorld({ targets: ['tasks'], modules: [module], env: { MILLRACE_EXECUTIONS_URL: '127.0.0.1:1' } });
    published = await listen(world, 'tasks', TaskEvent.decode);
  });
  after(async () => {
    await published?.stop();
    await world?.stop();
  });
  beforeEach(() => {
    person = world.person();
    service = world.as(person, TaskServiceService);
  });

  const create = (fields: Partial<Task> = {}, requestId = '', by = service): Promise<Task> =>
    by.createTask(CreateTaskRequest.fromPartial({ task: { title: 'Buy milk', ...fields } as Task, requestId }));
  const list = (fields: Partial<ListTasksRequest> = {}) => service.listTasks(ListTasksRequest.fromPartial(fields as ListTasksRequest));
  const update = (id: string, fields: Partial<Task>, updateMask?: string[]) =>
    service.updateTask({ id, task: Task.fromPartial(fields as Task), updateMask });

  it('makes a task and answers it', async () => {
    const dueTime = new Date('2030-05-06T07:08:09.123Z');
    const made = await create({
      description: 'two',
      priority: Task_Priority.HIGH,
      assigneeId: person.user,
      dueTime,
      input: { a: { b: [1, null] } },
    });
    expect(made).to.include({ title: 'Buy milk', state: Task_State.PENDING, creatorId: person.user, assigneeId: person.user, version: 1 });
    expect(await service.getTask({ id: made.id })).to.deep.equal(made);
  });

  describe('refuses', () => {
    it('what the contract forbids, naming the field and the known ones', async () => {
      const long = await refused(create({ title: 'x'.repeat(201) }));
      expect(long).to.include({ code: status.INVALID_ARGUMENT, reason: 'FIELD_INVALID' });
      expect(long.violations[0]?.field).to.equal('task.title');
      const blank = await refused(create({ title: '' }));
      expect(blank).to.include({ code: status.INVALID_ARGUMENT, reason: 'FIELD_INVALID' });
      expect(blank.metadata.fields).to.include('title').and.include('dueTime');
      const late = await refused(create({ dueTime: new Date('1969-12-31T00:00:00Z') }));
      expect(late.violations[0]?.field).to.equal('task.dueTime');
      const unsorted = await refused(list({ orderBy: 'title' }));
      expect(unsorted.violations[0]?.field).to.equal('orderBy');
    });

    it('an id of another kind, and answers one that is unknown as not found', async () => {
      expect(await refused(service.getTask({ id: newId('user') }))).to.include({ code: status.INVALID_ARGUMENT, reason: 'ID_INVALID' });
      expect(await refused(service.getTask({ id: newId('task') }))).to.include({ code: status.NOT_FOUND, reason: 'RESOURCE_NOT_FOUND' });
    });

    it('who may only read, and who is nobody', async () => {
      const reader = world.as({ ...person, scopes: ['tasks.read'] }, TaskServiceService);
      const made = await create();
      expect((await reader.getTask({ id: made.id })).id).to.equal(made.id);
      expect(await refused(create({}, '', reader))).to.include({ code: status.PERMISSION_DENIED, reason: 'PERMISSION_MISSING' });
      expect(await refused(world.as('', TaskServiceService).getTask({ id: made.id }))).to.include({ code: status.UNAUTHENTICATED });
    });
  });

  it('shows and changes nothing across workspaces', async () => {
    const { id } = await create({ title: 'secret' });
    const { id: commentId } = await service.createTaskComment({ taskId: id, text: 'hush', requestId: '' });
    expect(commentId).to.match(/^cmt_/);
    const stranger = world.as(world.person({ user: person.user }), TaskServiceService);
    const calls = {
      get: () => stranger.getTask({ id }),
      update: () => stranger.updateTask({ id, task: Task.fromPartial({ title: 'mine' }), updateMask: undefined }),
      delete: () => stranger.deleteTask({ id }),
      assign: () => stranger.assignTask({ id, assigneeId: '' }),
      start: () => stranger.startTask({ id }),
      complete: () => stranger.completeTask({ id }),
      reopen: () => stranger.reopenTask({ id }),
      cancel: () => stranger.cancelTask({ id }),
      run: () => stranger.runTask({ id }),
      comment: () => stranger.createTaskComment({ taskId: id, text: 'mine', requestId: '' }),
      comments: () => stranger.listTaskComments({ taskId: id, pageSize: 0, pageToken: '' }),
    };
    for (const [name, call] of Object.entries(calls)) expect((await refused(call())).code, name).to.equal(status.NOT_FOUND);
    expect((await stranger.listTasks(ListTasksRequest.fromPartial({ text: 'secret' }))).tasks).to.deep.equal([]);
    expect(await service.getTask({ id })).to.include({ title: 'secret', version: 1 });
  });

  describe('with an idempotency key', () => {
    it('makes one task of many calls, also at the same time', async () => {
      const key = newId('event');
      const made = await Promise.all(Array.from({ length: 5 }, () => create({ title: 'once' }, key)));
      expect(new Set(made.map(({ id }) => id)).size).to.equal(1);
      expect((await create({ title: 'once' }, key)).id).to.equal(made[0]?.id);
      expect((await list()).tasks).to.have.length(1);
    });

    it('refuses another request with the same key, and knows keys of one caller only', async () => {
      const key = newId('event');
      const made = await create({ title: 'once' }, key);
      expect(await refused(create({ title: 'twice' }, key))).to.include({ code: status.ALREADY_EXISTS, reason: 'IDEMPOTENCY_KEY_REUSED' });
      const colleague = world.as({ ...person, user: newId('user') }, TaskServiceService);
      expect((await create({ title: 'once' }, key, colleague)).id).not.to.equal(made.id);
    });

    it('makes one comment of a repeated call', async () => {
      const { id } = await create();
      const comment = { taskId: id, text: 'hello', requestId: newId('event') };
      expect(await service.createTaskComment(comment)).to.deep.equal(await service.createTaskComment(comment));
    });
  });

  describe('updates', () => {
    it('the fields that the mask names, or those that are present', async () => {
      const { id } = await create({ description: 'old', dueTime: new Date('2030-01-01T00:00:00Z') });
      expect(await update(id, { title: 'New', description: 'ignored' }, ['title'])).to.include({
        title: 'New',
        description: 'old',
        version: 2,
      });
      expect(await update(id, { description: 'new' })).to.include({ title: 'New', description: 'new', version: 3 });
      expect(await update(id, {}, ['due_time', 'description'])).to.include({ dueTime: undefined, description: '', version: 4 });
      expect(await update(id, { title: 'New' })).to.include({ version: 4 });
    });

    it('nothing when no known field is there, and says which are known', async () => {
      const { id } = await create();
      for (const fields of [{}, { state: Task_State.COMPLETED, version: 9, assigneeId: person.user }]) {
        const { code, reason, metadata } = await refused(update(id, fields));
        expect({ code, reason }).to.deep.equal({ code: status.INVALID_ARGUMENT, reason: 'NO_FIELDS' });
        expect(metadata.fields).to.equal('title,description,priority,dueTime,automationId,input');
      }
      expect(await refused(update(id, {}, ['state']))).to.include({ reason: 'FIELD_INVALID' });
      expect((await refused(update(id, {}, ['title']))).violations[0]?.field).to.equal('task.title');
      expect((await refused(update(id, { description: 'x'.repeat(20_001) }))).violations[0]?.field).to.equal('task.description');
    });

    it('one after the other when they come at the same time', async () => {
      const { id } = await create();
      const all = await Promise.all(Array.from({ length: 8 }, (_, index) => update(id, { title: `title ${index}` })));
      expect(all.map(({ version }) => version).sort()).to.deep.equal([2, 3, 4, 5, 6, 7, 8, 9]);
    });
  });

  it('pages through its tasks with the same query only', async () => {
    for (let index = 0; index < 5; index += 1) await create({ title: `task ${index}` });
    const first = await list({ pageSize: 2, text: 'task' });
    expect(first.tasks.map(({ title }) => title)).to.deep.equal(['task 4', 'task 3']);
    const second = await list({ pageSize: 3, text: 'task', pageToken: first.nextPageToken });
    expect(second.tasks.map(({ title }) => title)).to.deep.equal(['task 2', 'task 1', 'task 0']);
    expect(second.nextPageToken).to.equal('');
    for (const other of [{ text: 'other' }, { text: 'task', orderBy: 'due_time' }, { text: 'task', states: [Task_State.PENDING] }]) {
      expect(await refused(list({ ...other, pageToken: first.nextPageToken }))).to.include({ reason: 'PAGE_TOKEN_INVALID' });
    }
    expect(await refused(list({ pageToken: 'made up' }))).to.include({ code: status.INVALID_ARGUMENT, reason: 'PAGE_TOKEN_INVALID' });
  });

  it('answers a shorter page when a message cannot hold it, and the rest with the next ones', async () => {
    const description = '\u{1f95b}'.repeat(20_000);
    const made = await Promise.all(Array.from({ length: 30 }, () => create({ description })));
    const first = await list({ pageSize: 100 });
    expect(first.tasks.length).to.be.within(1, 29);
    const rest = await list({ pageSize: 100, pageToken: first.nextPageToken });
    expect(new Set([...first.tasks, ...rest.tasks].map(({ id }) => id))).to.deep.equal(new Set(made.map(({ id }) => id)));
  });

  it('publishes each change once, with a version that grows, and nothing for a change that changes nothing', async () => {
    const { id } = await create({ input: { secret: 1 } });
    await update(id, { title: 'Buy bread' });
    await service.assignTask({ id, assigneeId: person.user });
    await service.startTask({ id });
    await service.startTask({ id });
    await service.completeTask({ id });
    await service.reopenTask({ id });
    await service.createTaskComment({ taskId: id, text: 'again?', requestId: '' });
    await service.cancelTask({ id });
    await refused(service.startTask({ id }));
    await service.deleteTask({ id });
    const mine = () => published.heard.filter(({ event }) => event.task?.id === id);
    await until('the deletion to be published', () => mine().find(({ type }) => type === 'task.deleted'));
    expect(mine().map(({ type, version }) => `${type} ${version}`)).to.have.members([
      'task.created 1',
      'task.updated 2',
      'task.assigned 3',
      'task.started 4',
      'task.completed 5',
      'task.reopened 6',
      'task.commented 6',
      'task.cancelled 7',
      'task.deleted 8',
    ]);
    const completed = mine().find(({ type }) => type === 'task.completed');
    expect(completed?.subject).to.equal(`${world.config.natsPrefix}.events.tasks.${id}.completed`);
    expect(completed?.event).to.deep.include({ workspaceId: person.workspace, actorId: person.user });
    expect(completed?.event.task).to.include({ title: 'Buy bread', state: Task_State.COMPLETED, version: 5, input: undefined });
    expect(await refused(service.getTask({ id }))).to.include({ code: status.NOT_FOUND });
    expect(await refused(service.deleteTask({ id }))).to.include({ code: status.NOT_FOUND });
  });

  it('keeps comments, the oldest first', async () => {
    const { id } = await create();
    for (const text of ['one', 'two', 'three']) await service.createTaskComment({ taskId: id, text, requestId: '' });
    const first = await service.listTaskComments({ taskId: id, pageSize: 2, pageToken: '' });
    expect(first.comments.map(({ text, authorId }) => [text, authorId])).to.deep.equal([
      ['one', person.user],
      ['two', person.user],
    ]); // prettier-ignore
    const rest = await service.listTaskComments({ taskId: id, pageSize: 2, pageToken: first.nextPageToken });
    expect(rest.comments.map(({ text }) => text)).to.deep.equal(['three']);
    expect(rest.nextPageToken).to.equal('');
    expect((await refused(service.createTaskComment({ taskId: id, text: ' ', requestId: '' }))).violations[0]?.field).to.equal('text');
  });

  it('runs a task only with an automation, and leaves it as it is when executions do not answer', async () => {
    const unbound = await create();
    expect(await refused(service.runTask({ id: unbound.id }))).to.include({
      code: status.FAILED_PRECONDITION,
      reason: 'AUTOMATION_UNBOUND',
    });
    const bound = await create({ automationId: newId('automation') });
    const away = await refused(service.runTask({ id: bound.id }));
    expect(away).to.include({ code: status.UNAVAILABLE, reason: 'DEPENDENCY_UNAVAILABLE' });
    expect(away.message, 'names no address').to.match(/repeat the call/);
    expect(await service.getTask({ id: bound.id })).to.deep.equal(bound);
    await service.cancelTask({ id: bound.id });
    expect(await refused(service.runTask({ id: bound.id }))).to.include({ reason: 'TASK_ENDED' });
  });
});
