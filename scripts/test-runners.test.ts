import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { mocha, readJunit, runTests, share } from './test-runners.ts';

describe('the numbers of test runners', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'millrace-runners-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const report = () => join(folder, 'report.json');
  const run = (script: string, seconds = 20) =>
    runTests({ command: ['sh', '-c', script], env: { REPORT: report() }, seconds, report: report(), read: (text) => JSON.parse(text) });
  const TWO = `echo '{"passed":2,"failed":0,"failures":[]}' > $REPORT`;

  it('are those of the report', async () => {
    expect(await run(TWO)).to.deep.equal({ passed: 2, failed: 0, failures: [] });
    expect(await run(`echo '{"passed":2,"failed":1,"failures":["x"]}' > $REPORT; exit 1`)).to.deep.equal({
      passed: 2,
      failed: 1,
      failures: ['x'],
    });
  });
  it('count a runner that dies as one failure', async () => {
    expect(await run('kill -9 $$')).to.deep.equal({ passed: 0, failed: 1, failures: ['sh ran no test (exit SIGKILL)'] });
    expect(await run(`${TWO}; kill -9 $$`)).to.deep.include({ passed: 2, failed: 1 });
    expect(await run(`${TWO}; exit 7`)).to.deep.include({ passed: 2, failed: 1 });
    const forms = [{ what: 'kills', short: 1, long: 10 }];
    const told = JSON.stringify({ passed: 2, failed: 0, failures: [], forms });
    expect(await run(`echo '${told}' > $REPORT; exit 7`)).to.deep.include({ failed: 1, forms });
  });
  it('count a runner that runs no test as one failure', async () => {
    expect(await run('true')).to.deep.include({ passed: 0, failed: 1 });
    expect(await run(`echo '{"passed":0,"failed":0,"failures":[]}' > $REPORT`)).to.deep.include({ passed: 0, failed: 1 });
    expect(await mocha({ name: 'none', include: [`${folder}/*.test.ts`], env: {}, seconds: 5, timeout: 1 })).to.deep.include({
      passed: 0,
      failed: 1,
    });
  });
  it('are those of all runners that share the files', async () => {
    const test = (name: string, passes: boolean) =>
      writeFileSync(join(folder, `${name}.test.ts`), `it('${name}', () => { if (!${passes}) throw new Error('no'); });\n`);
    test('a', true);
    test('b', false);
    test('c', true);
    const include = [`${folder}/*.test.ts`];
    const counts = await mocha({ name: 'shared', include, runners: 2, env: {}, seconds: 30, timeout: 1000 });
    expect(counts).to.deep.include({ passed: 2, failed: 1 });
    expect(await mocha({ name: 'shared', include, runners: 1, parcels: 3, env: {}, seconds: 30, timeout: 1000 })).to.deep.equal(counts);
    const names = ['a', 'b', 'c'].map((name) => join(folder, `${name}.test.ts`));
    expect(share(names, 2).map(({ length }) => length)).to.have.members([2, 1]);
    expect(share(names, 5).flat()).to.have.members(names);
    writeFileSync(names[2] ?? '', 'describe("c", function () { this.timeout(60_000); });');
    expect(share(names, 3)[0], 'what asks for the most time').to.deep.equal([names[2]]);
    for (const name of names) rmSync(name);
  });
  it('count a runner that hangs as one failure, and end it with what it started', async () => {
    const { failed, failures } = await run('sleep 600 & sleep 600', 0.2);
    expect([failed, failures]).to.deep.equal([1, ['sh ran no test (killed after 0.2 s)']]);
  });
  it('count a report that was cut as one failure', async () => expect((await run(`echo '{"pas' > $REPORT`)).failed).to.be.at.least(1));

  it('are read from what pytest writes', () => {
    const xml = `<?xml version="1.0"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10" time="0.1">
<testcase classname="tests.test_a" name="test_x" time="0.1"><failure message="m">text</failure></testcase>
<testcase classname="tests.test_a" name="test_y" time="0.1" /></testsuite></testsuites>`;
    expect(readJunit(xml)).to.deep.equal({ passed: 4, failed: 3, failures: ['tests.test_a: test_x'] });
  });
});
