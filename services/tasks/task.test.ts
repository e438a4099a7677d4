import { expect } from 'chai';
import fc from 'fast-check';
import { Task, Task_Priority, Task_State, task_StateToJSON } from '#gen/millrace/tasks/v1/task.ts';
import { Fault } from '#platform/errors.ts';
import { newId } from '#platform/id.ts';
import { often } from '../../tests/long.ts';
import { refusal } from '../../tests/refusal.ts';
import * as task from './task.ts';

const NOW = new Date('2026-01-02T03:04:05.678Z');
const LATER = new Date('2026-01-02T03:05:00.000Z');
const { PENDING, IN_PROGRESS, COMPLETED, CANCELLED } = Task_State;
const user = newId('user');

const draft = (fields: Partial<Task> = {}): Task => Task.fromPartial({ title: 'Buy milk', ...fields });
const made = (fields: Partial<Task> = {}): Task => ({ ...task.accept(draft(), user, newId('task'), NOW), ...fields });
const run = (status: string, executionId = newId('execution')) => ({ executionId, status, output: undefined, logs: '', error: '' });

describe('a task', () => {
  describe('when accepted', () => {
    it('gets what the server sets, whatever the draft says of it', () => {
      const claimed = draft({
        id: 'mine',
        state: COMPLETED,
        creatorId: 'me',
        version: 7,
        endTime: NOW,
        createTime: LATER,
        run: run('SUCCEEDED'),
      });
      const id = newId('task');
      const accepted = task.accept(claimed, user, id, NOW);
      expect(accepted).to.include({ id, state: PENDING, creatorId: user, version: 1, endTime: undefined, run: undefined });
      expect(accepted).to.include({ priority: Task_Priority.NORMAL, createTime: NOW, updateTime: NOW });
    });

    it('needs a title, and a refusal names the fields that are known', () => {
      const { reason, violations, metadata } = refusal(() => task.accept(draft({ title: ' \n' }), user, newId('task'), NOW));
      expect(reason).to.equal('FIELD_INVALID');
      expect(violations[0]?.field).to.equal('task.title');
      expect(metadata.fields).to.equal('title,description,priority,assigneeId,dueTime,automationId,input');
    });

    for (const [field, fields] of Object.entries({
      'task.assigneeId': { assigneeId: 'usr_somebody' },
      'task.automationId': { automationId: newId('task') },
      'task.input': { input: { amount: Number.NaN } },
    })) {
      it(`refuses a wrong ${field}`, () => {
        expect(refusal(() => task.accept(draft(fields), user, newId('task'), NOW)).violations[0]?.field).to.equal(field);
      });
    }

    it('takes an input of 1 MiB and none that is larger', () => {
      const size = 1024 * 1024 - 32;
      expect(task.accept(draft({ input: { text: 'x'.repeat(size) } }), user, newId('task'), NOW).input).to.have.key('text');
      expect(refusal(() => task.accept(draft({ input: { text: 'x'.repeat(size + 32) } }), user, newId('task'), NOW)).message).to.match(
        /1 MiB/,
      );
    });
  });

  describe('moves between its states', () => {
    const verbs = { start: task.start, complete: task.complete, reopen: task.reopen, cancel: task.cancel };
    const refused = 'TASK_ENDED';
    const table: [keyof typeof verbs, Record<number, Task_State | typeof refused>][] = [
      ['start', { [PENDING]: IN_PROGRESS, [IN_PROGRESS]: IN_PROGRESS, [COMPLETED]: refused, [CANCELLED]: refused }],
      ['complete', { [PENDING]: COMPLETED, [IN_PROGRESS]: COMPLETED, [COMPLETED]: COMPLETED, [CANCELLED]: refused }],
      ['reopen', { [PENDING]: PENDING, [IN_PROGRESS]: IN_PROGRESS, [COMPLETED]: PENDING, [CANCELLED]: PENDING }],
      ['cancel', { [PENDING]: CANCELLED, [IN_PROGRESS]: CANCELLED, [COMPLETED]: refused, [CANCELLED]: CANCELLED }],
    ];
    for (const [verb, moves] of table) {
      for (const state of [PENDING, IN_PROGRESS, COMPLETED, CANCELLED]) {
        const wanted = moves[state];
        it(`${verb} of ${task_StateToJSON(state)}: ${typeof wanted === 'number' ? task_StateToJSON(wanted) : wanted}`, () => {
          const before = made({ state, endTime: state === COMPLETED || state === CANCELLED ? NOW : undefined });
          if (wanted === refused) return void expect(refusal(() => verbs[verb](before, LATER)).reason).to.equal(refused);
          const after = verbs[verb](before, LATER);
          expect(after.state).to.equal(wanted);
          if (wanted === state) expect(after, 'nothing changed').to.equal(before);
          else expect(after).to.include({ version: 2, updateTime: LATER, endTime: task.hasEnded(after) ? LATER : undefined });
        });
      }
    }

    it('and by no sequence of verbs leaves the moves that the contract draws', () => {
      const allowed = new Set(
        [
          [PENDING, IN_PROGRESS],
          [IN_PROGRESS, COMPLETED],
          [PENDING, COMPLETED],
          [PENDING, CANCELLED],
          [IN_PROGRESS, CANCELLED],
          [COMPLETED, PENDING],
          [CANCELLED, PENDING],
        ].map(String),
      );
      const steps: Record<string, (before: Task, now: Date) => Task> = {
        ...verbs,
        assign: (before, now) => task.assign(before, user, now),
        unassign: (before, now) => task.assign(before, '', now),
        update: (before, now) => task.update(before, draft({ title: 'Buy bread' }), ['title'], now),
        runAccepted: (before, now) => task.runAccepted(before, run('QUEUED'), now),
        runSucceeded: (before, now) => task.runMoved(before, run('SUCCEEDED'), now),
        runFailed: (before, now) => task.runMoved(before, run('FAILED'), now),
      };
      fc.assert(
        fc.property(fc.array(fc.constantFrom(...Object.keys(steps)), { maxLength: 30 }), (names) => {
          let at = made();
          for (const [tick, step] of names.entries()) {
            const before = at;
            try {
              at = steps[step]?.(before, new Date(NOW.getTime() + tick)) ?? before;
            } catch (error) {
              if (!(error instanceof Fault && error.reason === 'TASK_ENDED')) throw error;
            }
            if (at.state !== before.state) expect([...allowed]).to.include(String([before.state, at.state]));
            expect(at.version - before.version).to.equal(at === before ? 0 : 1);
            expect(at.endTime !== undefined).to.equal(task.hasEnded(at));
            expect(at.id).to.equal(before.id);
          }
        }),
        often('tasks by any steps'),
      );
    });
  });

  describe('when updated', () => {
    const full = made({
      description: 'two bottles',
      priority: Task_Priority.HIGH,
      dueTime: NOW,
      automationId: newId('automation'),
      input: { litres: 2 },
    });

    it('changes what the mask names and nothing else', () => {
      const after = task.update(full, draft({ title: 'Buy bread', description: 'ignored' }), ['title'], LATER);
      expect(after).to.deep.equal({ ...full, title: 'Buy bread', version: 2, updateTime: LATER });
    });

    it('clears what the mask names and the task leaves out', () => {
      const after = task.update(full, draft(), ['description', 'priority', 'due_time', 'automation_id', 'input'], LATER);
      expect(after).to.include({
        description: '',
        priority: Task_Priority.NORMAL,
        dueTime: undefined,
        automationId: undefined,
        input: undefined,
      });
    });

    it('never loses its title', () => {
      expect(refusal(() => task.update(full, draft({ title: '' }), ['title'], LATER)).violations[0]?.field).to.equal('task.title');
    });

    it('stays as it is, with its version, when nothing differs', () => {
      expect(task.update(full, draft({ dueTime: new Date(NOW), input: { litres: 2 } }), ['due_time', 'input'], LATER)).to.equal(full);
    });

    it('is refused once it has ended', () => {
      expect(refusal(() => task.update(made({ state: COMPLETED }), draft(), ['title'], LATER)).reason).to.equal('TASK_ENDED');
      expect(refusal(() => task.assign(made({ state: CANCELLED }), user, LATER)).reason).to.equal('TASK_ENDED');
    });
  });

  describe('when run', () => {
    const bound = made({ automationId: newId('automation'), input: { n: 1 } });
    const keyOf = (one: Task) => task.nextRun(one)?.requestId;

    it('needs an automation, and to be open', () => {
      expect(refusal(() => task.nextRun(made())).reason).to.equal('AUTOMATION_UNBOUND');
      expect(refusal(() => task.nextRun(made({ ...bound, state: CANCELLED }))).reason).to.equal('TASK_ENDED');
    });

    it('asks with one key until the run is accepted, and with another for another input or run', () => {
      expect(keyOf(bound)).to.equal(keyOf({ ...bound, title: 'renamed', version: 9 }));
      expect(keyOf(bound)).not.to.equal(keyOf({ ...bound, input: { n: 2 } }));
      expect(keyOf(bound)).not.to.equal(keyOf({ ...bound, run: run('FAILED') }));
      expect(keyOf(bound)?.length).to.be.at.most(128);
    });

    it('is not run again while a run goes on', () => {
      for (const status of ['SCHEDULED', 'QUEUED', 'RUNNING', 'RETRYING', 'PAUSED', 'CANCELLING']) {
        expect(task.nextRun({ ...bound, run: run(status) }), status).to.equal(undefined);
      }
      for (const status of ['SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT', 'SKIPPED']) {
        expect(task.nextRun({ ...bound, run: run(status) }), status).to.include({ automationId: bound.automationId });
      }
    });

    it('is in progress, and completed by success alone', () => {
      const accepted = task.runAccepted(bound, run('QUEUED'), LATER);
      expect(accepted.state).to.equal(IN_PROGRESS);
      expect(task.runMoved(accepted, run('SUCCEEDED'), LATER)).to.include({ state: COMPLETED, endTime: LATER, version: 3 });
      expect(task.runMoved(accepted, { ...run('FAILED'), error: 'ValueError' }, LATER)).to.include({
        state: IN_PROGRESS,
        endTime: undefined,
      });
    });

    it('stays cancelled when it was cancelled meanwhile, and keeps how the run ended', () => {
      const cancelled = made({ ...bound, state: CANCELLED, endTime: NOW });
      const after = task.runMoved(task.runAccepted(cancelled, run('QUEUED'), LATER), run('SUCCEEDED'), LATER);
      expect(after).to.include({ state: CANCELLED, endTime: NOW });
      expect(after.run?.status).to.equal('SUCCEEDED');
    });
  });

  it('leaves out what may be large where it is summed up', () => {
    const summary = task.summaryOf(made({ input: { n: 1 }, run: { ...run('SUCCEEDED'), output: 5, logs: 'x', error: 'e' } }));
    expect(summary.input).to.equal(undefined);
    expect(summary.run).to.include({ status: 'SUCCEEDED', output: undefined, logs: '', error: 'e' });
  });
});
