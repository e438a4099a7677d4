import { expect } from 'chai';
import { HealthServiceService, GetHealthResponse_Status as Status } from '#gen/millrace/health/v1/health_service.ts';
import { startWorld, type World } from '../../tests/world.ts';

describe('health', () => {
  let world: World;
  before(async () => {
    const nowhere = '127.0.0.1:1';
    const env = Object.fromEntries(
      ['IDENTITY', 'TASKS', 'AUTOMATIONS', 'EXECUTIONS', 'SCHEDULES', 'WEBHOOKS', 'RUNNER'].map((area) => [
        `MILLRACE_${area}_URL`,
        nowhere,
      ]),
    );
    world = await startWorld({ targets: ['health'], env });
  });
  after(() => world?.stop());

  it('names every area that does not answer, and answers anyone', async () => {
    const answer = await world.as('', HealthServiceService).getHealth({});
    expect(answer.status).to.equal(Status.NOT_SERVING);
    expect(Object.keys(answer.areas)).to.have.members([
      'identity',
      'tasks',
      'automations',
      'executions',
      'schedules',
      'webhooks',
      'runner',
    ]);
    expect(answer.areas.tasks).to.equal(Status.NOT_SERVING);
  });
});
