// Tasks together with what runs them: automations, executions, the dispatcher and a real automation server.
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import {
  AutomationServiceService,
  CreateAutomationRequest,
  CreateAutomationRevisionRequest,
} from '#gen/millrace/automations/v1/automation_service.ts';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import { ExecutionServiceService, ListExecutionsRequest } from '#gen/millrace/executions/v1/execution_service.ts';
import { ProjectionServiceService } from '#gen/millrace/executions/v1/projection_service.ts';
import { Task, Task_State } from '#gen/millrace/tasks/v1/task.ts';
import { CreateTaskRequest, TaskServiceService } from '#gen/millrace/tasks/v1/task_service.ts';
import type { ClientOf } from '#platform/client.ts';
import { newId, toBytes } from '#platform/id.ts';
import { freePort } from '../deploy/local/ports.ts';
import { module as automationsModule } from '../services/automations/module.ts';
import { module as dispatcherModule } from '../services/executions/dispatcher/module.ts';
import { module as executionsModule } from '../services/executions/module.ts';
import { module as tasksModule } from '../services/tasks/module.ts';
import { type Runner, startRunner } from './runner.ts';
import { type Person, startWorld, until, type World } from './world.ts';

const GREET = `
def main(name: str, fail: bool = False) -> dict:
    print("hello", name)
    if fail:
        raise ValueError("told to fail")
    return {"greeted": name}
`;
const LOUD = 'def main() -> None:\n    for i in range(2000):\n        print(f"{i:04} " + "é" * 40)\n';
const SLOW = 'import time\ndef main() -> None:\n    time.sleep(600)\n';
const modules = [tasksModule, automationsModule, executionsModule, dispatcherModule];

describe('a task that is run', function () {
  this.timeout(60_000);
  let runner: Runner;
  let world: World; // tasks
  let person: Person;
  let tasks: ClientOf<TaskServiceService>;
  let executions: ClientOf<ExecutionServiceService>;
  const bound: Record<string, string> = {}; // automations by their source

  before(async () => {
    const address = `127.0.0.1:${await freePort()}`;
    runner = await startRunner({ MILLRACE_EXECUTIONS_URL: address });
    world = await startWorld({ targets: modules.map(({ name }) => name), modules, env: { ...runner.env, MILLRACE_GRPC_ADDRESS: address } });
    person = world.person();
    tasks = world.as(person, TaskServiceService);
    executions = world.as(person, ExecutionServiceService);
    const automations = world.as(person, AutomationServiceService);
    for (const source of [GREET, LOUD, SLOW]) {
      const { id } = await automations.createAutomation(CreateAutomationRequest.fromPartial({ automation: { name: newId('event') } }));
      const spec = { source, retryPolicy: { maxAttempts: 1 } };
      await automations.createAutomationRevision(CreateAutomationRevisionRequest.fromPartial({ automationId: id, spec }));
      await automations.publishAutomation({ id, revision: 0 });
      bound[source] = id;
    }
  });
  after(async () => {
    await world?.stop();
    await runner?.stop();
  });

  const create = (source: string, input?: object): Promise<Task> =>
    tasks.createTask(CreateTaskRequest.fromPartial({ task: { title: 'greet', automationId: bound[source], input } as object }));
  const when = (id: string, what: string, is: (task: Task) => boolean) =>
    until(what, async () => {
      const task = await tasks.getTask({ id });
      return is(task) ? task : undefined;
    });
  const isOver = ({ run }: Task) => run !== undefined && ['SUCCEEDED', 'FAILED', 'CANCELLED'].includes(run.status);
  const countOf = async (taskId: string) =>
    (await executions.listExecutions(ListExecutionsRequest.fromPartial({ pageSize: 200 }))).executions.filter(
      ({ labels }) => labels.task === taskId,
    ).length;

  it('is completed by success, with status, output and log on it', async () => {
    const { id } = await create(GREET, { name: 'ann' });
    const started = await tasks.runTask({ id });
    expect(started).to.include({ state: Task_State.IN_PROGRESS, version: 2 });
    expect(started.run?.executionId).to.match(/^exe_/);
    const done = await when(id, 'the task to be completed', ({ state }) => state === Task_State.COMPLETED);
    expect(done.run).to.deep.include({ status: 'SUCCEEDED', output: { greeted: 'ann' }, logs: 'hello ann\n', error: '' });
    expect(done.endTime).to.be.instanceOf(Date);
    const { tasks: listed } = await tasks.listTasks({ states: [], assigneeId: '', text: '', pageSize: 0, pageToken: '', orderBy: '' });
    expect(listed.find((task) => task.id === id)?.run).to.deep.include({ status: 'SUCCEEDED', output: undefined, logs: '' });
  });

  it('stays in progress when it fails, says why, and can be run again', async () => {
    const { id } = await create(GREET, { name: 'bob', fail: true });
    const first = await tasks.runTask({ id });
    const failed = await when(id, 'the run to fail', isOver);
    expect(failed.state).to.equal(Task_State.IN_PROGRESS);
    expect(failed.run).to.deep.include({ status: 'FAILED', error: 'ValueError: told to fail', output: undefined });
    expect(failed.run?.logs).to.include('hello bob\n');
    await tasks.updateTask({ id, task: Task.fromPartial({ input: { name: 'bob' } }), updateMask: ['input'] });
    const second = await tasks.runTask({ id });
    expect(second.run?.executionId).not.to.equal(first.run?.executionId);
    await when(id, 'the task to be completed', ({ state }) => state === Task_State.COMPLETED);
    expect(await countOf(id)).to.equal(2);
  });

  it('keeps the end of a long log', async () => {
    const { id } = await create(LOUD);
    await tasks.runTask({ id });
    const { run } = await when(id, 'the run to end', isOver);
    expect(run).to.include({ status: 'SUCCEEDED', output: null });
    expect(Buffer.byteLength(run?.logs ?? '')).to.be.within(64 * 1024 - 3, 64 * 1024);
    expect(run?.logs.endsWith(`1999 ${'é'.repeat(40)}\n`)).to.equal(true);
  });

  it('starts one execution, however many run it at the same time, and says so of the others', async () => {
    const { id } = await create(SLOW);
    const colleague = world.as({ ...person, user: newId('user') }, TaskServiceService);
    const calls = [tasks, tasks, colleague, tasks, colleague].map((client) => client.runTask({ id }).catch((error) => error));
    const answers = await Promise.all(calls);
    const ran = answers.filter((answer): answer is Task => answer.run !== undefined);
    expect(new Set(ran.map(({ run }) => run?.executionId)).size).to.equal(1);
    for (const answer of answers) if (!ran.includes(answer)) expect(answer).to.include({ code: status.ABORTED, reason: 'CONFLICT' });
    expect((await tasks.runTask({ id })).run?.executionId).to.equal(ran[0]?.run?.executionId);
    expect(await countOf(id)).to.equal(1);
    const running = await when(id, 'the run to be seen running', ({ run }) => run?.status === 'RUNNING');
    expect(running.state).to.equal(Task_State.IN_PROGRESS);
    await executions.cancelExecution({ id: running.run?.executionId ?? '', reason: '' });
    expect(await when(id, 'the run to be cancelled', isOver)).to.include({ state: Task_State.IN_PROGRESS });
  });

  it('hears of its end by the event, and stays cancelled', async () => {
    const { id } = await create(SLOW);
    const { run } = await tasks.runTask({ id });
    await tasks.cancelTask({ id });
    const execution = toBytes('execution', run?.executionId ?? '');
    const later = world.db('tasks').raw('utc_timestamp(6) + interval 1 day'); // it does not ask by itself
    await world.db('tasks')('task_runs').where({ execution }).update({ check_time: later });
    await executions.cancelExecution({ id: run?.executionId ?? '', reason: '' });
    expect(await when(id, 'the run to be cancelled', isOver)).to.include({ state: Task_State.CANCELLED });
  });
  it('is run only by who may run automations, and only as what they accept', async () => {
    const { id } = await create(GREET, { wrong: 1 });
    expect(await tasks.runTask({ id }).catch((error) => error)).to.include({ code: status.INVALID_ARGUMENT, reason: 'INPUT_INVALID' });
    const writer = world.as({ ...person, scopes: ['tasks.read', 'tasks.write'] }, TaskServiceService);
    expect(await writer.runTask({ id }).catch((error) => error)).to.include({
      code: status.PERMISSION_DENIED,
      reason: 'PERMISSION_MISSING',
    });
    expect(await tasks.getTask({ id })).to.include({ state: Task_State.PENDING, version: 1, run: undefined });
  });
});

describe('a task whose events are lost', function () {
  this.timeout(60_000);
  let near: World; // tasks
  let far: World; // executions, on other subjects of the broker: no event reaches the tasks
  let person: Person;
  let tasks: ClientOf<TaskServiceService>;
  let executions: ClientOf<ExecutionServiceService>;
  let automationId: string;

  before(async () => {
    far = await startWorld({ targets: ['executions'], modules });
    const { MILLRACE_SERVICE_KEYS = '', MILLRACE_SERVICE_JWKS = '' } = far.env;
    const env = { MILLRACE_SERVICE_KEYS, MILLRACE_SERVICE_JWKS, MILLRACE_EXECUTIONS_URL: far.grpcAddress };
    near = await startWorld({ targets: ['tasks'], modules, env });
    person = near.person();
    tasks = near.as(person, TaskServiceService);
    executions = far.as(person, ExecutionServiceService);
    automationId = newId('automation');
    const told = {
      automationId,
      workspaceId: person.workspace,
      name: 'a',
      version: 1,
      publishedRevision: 1,
      disabled: false,
      deleted: false,
    };
    const revisions = [{ number: 1, spec: AutomationSpec.fromPartial({ source: GREET }) }];
    await far.asService('automations', ProjectionServiceService).applyAutomation({ ...told, revisions });
  });
  after(async () => {
    await near?.stop();
    await far?.stop();
  });

  async function run(): Promise<{ id: string; executionId: string }> {
    const { id } = await tasks.createTask(CreateTaskRequest.fromPartial({ task: { title: 'greet', automationId } }));
    const { run } = await tasks.runTask({ id });
    expect(run?.status).to.equal('QUEUED');
    return { id, executionId: run?.executionId ?? '' };
  }
  const over = (id: string) =>
    until('the run to be over', async () => {
      const { run } = await tasks.getTask({ id });
      return run?.status === 'QUEUED' ? undefined : run;
    });

  it('asks how its run goes', async () => {
    const { id, executionId } = await run();
    await executions.cancelExecution({ id: executionId, reason: '' });
    expect((await over(id))?.status).to.equal('CANCELLED');
  });

  it('gives a run up whose execution is not kept any more', async () => {
    const { id, executionId } = await run();
    await far
      .db('executions')('executions')
      .where({ id: toBytes('execution', executionId) })
      .delete(); // prettier-ignore
    const lost = await over(id);
    expect(lost).to.include({ status: 'FAILED' });
    expect(lost?.error).to.match(/no longer kept/);
  });
});
