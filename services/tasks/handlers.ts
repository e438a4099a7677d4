// handlers.ts: the methods of TaskService, in the contract's order.
import { Execution, execution_StateToJSON } from '#gen/millrace/executions/v1/execution.ts';
import type { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { Task } from '#gen/millrace/tasks/v1/task.ts';
import { TaskComment } from '#gen/millrace/tasks/v1/task_comment.ts';
import type { TaskServiceService } from '#gen/millrace/tasks/v1/task_service.ts';
import type { ClientOf } from '#platform/client.ts';
import { Fault, unavailable } from '#platform/errors.ts';
import type { Handlers } from '#platform/handlers.ts';
import { newId } from '#platform/id.ts';
import { claimKey } from '#platform/idempotency.ts';
import { maskedFields } from '#platform/mask.ts';
import { emit } from '#platform/outbox.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import { type Deps as ChangeDeps, change } from './change.ts';
import * as events from './events.ts';
import * as comments from './store/comments.ts';
import * as lists from './store/list.ts';
import * as runs from './store/runs.ts';
import * as tasks from './store/tasks.ts';
import * as task from './task.ts';
import { watch } from './watch.ts';

export interface Deps extends ChangeDeps {
  executions: Pick<ClientOf<ExecutionServiceService>, 'createExecution'>;
}

export const handlers = (deps: Deps): Handlers<TaskServiceService> => ({
  async createTask({ task: draft = Task.fromPartial({}) }, call) {
    const { db, bus, clock } = deps;
    const { workspace, user } = call.caller;
    const made = task.accept(draft, user, newId('task'), clock());
    const kept = await db.transaction(async (tx) => {
      const earlier = await claimKey(tx, call, made.id);
      if (earlier) return tasks.get(tx, workspace, earlier);
      await tasks.insert(tx, workspace, made);
      await emit(tx, events.created(made, call.caller));
      return made;
    });
    if (kept === made) events.notice(bus, workspace, made.id);
    return kept;
  },

  async getTask({ id }, { caller }) {
    return tasks.get(deps.db, caller.workspace, id);
  },

  async listTasks({ states, assigneeId, text, pageSize: asked, pageToken, orderBy }, { caller }) {
    const query = { states, assigneeId, text, orderBy };
    const order = lists.orderOf(orderBy);
    const size = pageSize(asked);
    const after = decodePage<lists.Position>(pageToken, query);
    const found = await lists.list(deps.db, caller.workspace, query, order, after, size + 1);
    const { items, last } = cutPage(found, size, Task);
    return { tasks: items, nextPageToken: last ? encodePage(query, lists.positionOf(last, order)) : '' };
  },

  async updateTask({ id, task: draft = Task.fromPartial({}), updateMask }, { caller }) {
    const fields = maskedFields(updateMask, draft, task.UPDATABLE, Task);
    return change(deps, caller, id, (before, now) => task.update(before, draft, fields, now));
  },

  async deleteTask({ id }, { caller }) {
    const { db, bus, clock } = deps;
    await db.transaction(async (tx) => {
      const gone = await tasks.lock(tx, caller.workspace, id);
      await tasks.remove(tx, caller.workspace, id, clock());
      await emit(tx, events.deleted(gone, caller));
    });
    events.notice(bus, caller.workspace, id);
    return {};
  },

  async assignTask({ id, assigneeId }, { caller }) {
    return change(deps, caller, id, (before, now) => task.assign(before, assigneeId, now));
  },

  async startTask({ id }, { caller }) {
    return change(deps, caller, id, task.start);
  },

  async completeTask({ id }, { caller }) {
    return change(deps, caller, id, task.complete);
  },

  async reopenTask({ id }, { caller }) {
    return change(deps, caller, id, task.reopen);
  },

  async cancelTask({ id }, { caller }) {
    return change(deps, caller, id, task.cancel);
  },

  async runTask({ id }, { caller }) {
    const { db, executions } = deps;
    return runs.withClaim(db, caller.workspace, id, caller.user, async () => {
      const before = await tasks.get(db, caller.workspace, id);
      const next = task.nextRun(before);
      if (!next) return before;
      const { automationId, input, requestId } = next;
      const execution = await executions
        .createExecution(
          { execution: Execution.fromPartial({ automationId, input, labels: { [task.TASK_LABEL]: id } }), requestId },
          { actor: { ...caller, scopes: [...caller.scopes] } },
        )
        .catch((error) => {
          throw isRefusal(error) ? error : unavailable('executions do not answer: repeat the call, it starts no second run', 1000, error);
        });
      const run = { executionId: execution.id, status: execution_StateToJSON(execution.state), logs: '', error: '' };
      return change(deps, caller, id, async (before, now, tx) => {
        const isNew = await runs.insert(tx, caller.workspace, id, run, caller.user, now);
        return isNew ? task.runAccepted(before, run, now) : before;
      });
    });
  },

  async createTaskComment({ taskId, text }, call) {
    const { db, clock } = deps;
    const { workspace, user } = call.caller;
    const made = task.acceptComment(text, taskId, user, newId('comment'), clock());
    return db.transaction(async (tx) => {
      const earlier = await claimKey(tx, call, made.id);
      if (earlier) return comments.get(tx, workspace, taskId, earlier);
      const commented = await tasks.lock(tx, workspace, taskId, 'taskId');
      await comments.insert(tx, workspace, made);
      await emit(tx, events.commented(commented, call.caller));
      return made;
    });
  },

  async listTaskComments({ taskId, pageSize: asked, pageToken }, { caller }) {
    const query = { taskId };
    const size = pageSize(asked);
    const after = decodePage<string>(pageToken, query);
    await tasks.get(deps.db, caller.workspace, taskId, 'taskId');
    const found = await comments.list(deps.db, caller.workspace, taskId, after, size + 1);
    const { items, last } = cutPage(found, size, TaskComment);
    return { comments: items, nextPageToken: last ? encodePage(query, last.id) : '' };
  },

  watchTasks(_request, { caller, signal, log }) {
    return watch({ ...deps, log }, caller.workspace, signal);
  },
});

// Whether executions said no, in words that the caller can use.
const isRefusal = (error: unknown): boolean =>
  error instanceof Fault && error.reason !== 'DEPENDENCY_UNAVAILABLE' && error.reason !== 'UNEXPECTED';
