import { execFileSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { AUTOMATION, BUILDER, LAUNCHER } from '../scripts/settings.ts';

const namesIn = (pattern: RegExp, files: readonly string[]): string[] =>
  [...new Set(files.flatMap((file) => [...readFileSync(file, 'utf8').matchAll(pattern)].map(([, name = '']) => name)))].sort();
const sources = (...globs: string[]) => globSync(globs).filter((file) => !/\.test\.ts$|\.fixture\.ts$/.test(file));

describe('docs/OPERATIONS.md', function () {
  this.timeout(30_000);
  it('lists the settings as the code has them (else: node scripts/settings.ts)', () => {
    const wanted = execFileSync(process.execPath, ['scripts/settings.ts', '--print'], { encoding: 'utf8' }); // where no test declares any
    expect(readFileSync('docs/OPERATIONS.md', 'utf8')).to.equal(wanted);
  });

  it('names what the launcher, the automation server and the builder read', () => {
    const launcher = namesIn(/\b(?:env|outer)\.(MILLRACE_\w+)/g, sources('deploy/local/*.ts'));
    expect(LAUNCHER.map(([name]) => name).sort()).to.deep.equal(launcher);
    const automation = namesIn(/'(MILLRACE_\w+)'/g, ['automation/millrace_automation/server/settings.py']);
    expect(AUTOMATION.map(([name]) => name).sort()).to.deep.equal(automation);
    const builder = namesIn(/'(MILLRACE_\w+)'/g, ['automation/millrace_automation/builder/settings.py']);
    expect(BUILDER.map(([name]) => name).sort()).to.deep.equal(builder);
  });

  it('names every variable that stands anywhere in the code', () => {
    const files = sources('{services,envoy,deploy,scripts,bench,tests}/**/*.ts', 'automation/**/*.py', 'scripts/*.sh', 'Makefile');
    const named = namesIn(/\b(MILLRACE_[A-Z0-9_]*[A-Z0-9])(?![A-Z0-9_$])/g, files).map((name) => name.replace(/_FILE$/, ''));
    const text = readFileSync('docs/OPERATIONS.md', 'utf8');
    const section = text.slice(text.indexOf('## Settings'));
    expect(named.length).to.be.above(70);
    expect(named.filter((name) => !section.includes(`\`${name}\``) && !section.includes(`\`${name}_FILE\``))).to.deep.equal([]);
  });
});
