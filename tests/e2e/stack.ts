// One real stack for all end-to-end tests of a run, started when the first of them needs it.
import { type Stack, startStack } from '../../deploy/local/stack.ts';

// Scripts whose rules name this machine may reach it.
const REACH = { MILLRACE_AUTOMATION_EGRESS_ALLOW: '127.0.0.0/8, ::1/128' };

let started: Promise<Stack> | undefined;

export const theStack = (): Promise<Stack> => {
  started ??= startStack({ settings: { MILLRACE_LOG_LEVEL: 'info', MILLRACE_EGRESS_ALLOW: '127.0.0.0/8', ...REACH } }).catch((error) => {
    throw new Error([error.message, ...(error.lines ?? [])].join('\n'), { cause: error });
  });
  return started;
};

after(async function () {
  this.timeout(60_000);
  await (await started)?.stop();
});
