import { expect } from 'chai';
import { type DeadLetter, DeadLetter_State as State } from '#gen/millrace/executions/v1/dead_letter.ts';
import { DeadLetterFilter } from '#gen/millrace/executions/v1/dead_letter_service.ts';
import { ExecutionEvent } from '#gen/millrace/executions/v1/execution_event.ts';
import { PlatformDeadLetterServiceService } from '#gen/millrace/executions/v1/platform_dead_letter_service.ts';
import { bury } from '#platform/consumer.ts';
import { newId, toBytes } from '#platform/id.ts';
import { startWorld, type World } from './world.ts';

// Events that two areas gave up, looked after in one place.
describe('dead events of several areas', function () {
  this.timeout(60_000);
  let world: World;
  before(async () => {
    world = await startWorld({ targets: ['executions', 'tasks', 'schedules'], env: { MILLRACE_AUTOMATIONS_URL: '127.0.0.1:1' } });
  });
  after(() => world?.stop());

  async function dead(area: string, consumer: string): Promise<string> {
    const executionId = newId('execution');
    const item = { execution: { id: executionId }, workspaceId: newId('workspace') };
    const event = {
      id: newId('event'),
      type: 'execution.ended',
      subject: executionId,
      workspace: '',
      version: 1,
      schema: 'millrace.executions.v1.ExecutionEvent',
      time: new Date(),
      data: ExecutionEvent.encode(ExecutionEvent.fromPartial({ items: [item] })).finish(),
    };
    await bury({ name: consumer, area: 'executions', db: world.db(area), handle: async () => undefined }, event, 10, new Error('broken'));
    return event.id;
  }

  it('are shown together and go back to the consumers that run in the areas', async () => {
    const admin = world.as(world.person({ scopes: ['platform.manage'] }), PlatformDeadLetterServiceService);
    const events = { schedules: await dead('schedules', 'schedules-executions'), tasks: await dead('tasks', 'tasks-executions') };
    const filter = DeadLetterFilter.fromPartial({ kind: 2 });
    const list = () => admin.listPlatformDeadLetters({ filter, pageSize: 0, pageToken: '' });
    const found = await list();
    const shown = (letters: readonly DeadLetter[]) => letters.map(({ area, consumer, state }) => [area, consumer, state]);
    expect(shown(found.deadLetters)).to.deep.equal([
      ['schedules', 'schedules-executions', State.DEAD],
      ['tasks', 'tasks-executions', State.DEAD],
    ]);
    expect(found.unreachableAreas).to.deep.equal(['automations']);
    const whole = await admin.getPlatformDeadLetter({ id: found.deadLetters[1]?.id ?? '' });
    expect(whole.event?.data?.items).to.have.length(1);
    const done = await admin.redrivePlatformDeadLetters({ filter, pageSize: 0, pageToken: '' });
    expect(done).to.deep.include({ settledCount: 2, refusals: [] });
    expect((await list()).deadLetters).to.deep.equal([]);
    for (const [area, id] of Object.entries(events))
      expect(
        await world
          .db(area)('inbox')
          .where({ event: toBytes('event', id) }),
        area,
      ).to.have.length(1);
  });
});
