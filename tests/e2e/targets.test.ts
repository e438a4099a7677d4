import { type Stack, startStack } from '../../deploy/local/stack.ts';
import { journey } from './journey.ts';
import { signUp } from './rest.ts';

describe('the same system in other processes', function () {
  this.timeout(120_000);
  const layouts: Record<string, Record<string, readonly string[]>> = {
    'identity and tasks in one, the rest in others': {
      first: ['identity', 'tasks'],
      second: ['health', 'automations'],
      third: ['executions', 'schedules', 'webhooks'],
      fourth: ['dispatcher'],
    },
    'all in one': { single: ['all'] },
  };
  for (const [name, processes] of Object.entries(layouts)) {
    describe(name, () => {
      let stack: Stack;
      before(async () => {
        stack = await startStack({ processes });
      });
      after(() => stack?.stop());
      it('does the same job', async () => journey(await signUp(stack.urls.base)));
    });
  }
});
