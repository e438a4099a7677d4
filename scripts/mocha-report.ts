// Mocha's usual report, and the numbers in the file that MILLRACE_TEST_REPORT names: whoever adds them up need not read a log.
import { writeFileSync } from 'node:fs';
import mocha from 'mocha';
import { met } from '../tests/long.ts';

export default class Report extends mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    const failures: string[] = [];
    runner.on('fail', (test) => void failures.push(test.fullTitle()));
    runner.once('end', () => {
      const { passes, pending } = runner.stats ?? { passes: 0, pending: 0 };
      const file = process.env.MILLRACE_TEST_REPORT;
      if (file) writeFileSync(file, JSON.stringify({ passed: passes, failed: failures.length, pending, failures, forms: met() }));
    });
  }
}
