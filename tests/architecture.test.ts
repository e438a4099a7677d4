// Who may import whom, how long a file may be, and where the environment is read.
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { expect } from 'chai';
import { modules } from '../services/modules.ts';

const code = globSync('{services,envoy,deploy,cli,scripts}/**/*.ts').filter((file) => !file.endsWith('.test.ts'));
const python = globSync('automation/**/*.py').filter((file) => !file.includes('/tests/'));
const areaOf = (file: string): string => /^services\/([a-z-]+)\//.exec(file)?.[1] ?? '';

// The files of the project that a file imports, by path.
function importsOf(file: string): string[] {
  const text = readFileSync(file, 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?'([^']+)'/g)].map(([, name = '']) => {
    if (name.startsWith('#platform/')) return `services/platform/${name.slice('#platform/'.length)}`;
    return name.startsWith('.') ? normalize(join(dirname(file), name)) : name;
  });
}
const breaches = (rule: (file: string, imported: string) => boolean): string[] =>
  code.flatMap((file) =>
    importsOf(file)
      .filter((imported) => rule(file, imported))
      .map((imported) => `${file} imports ${imported}`),
  ); // prettier-ignore

describe('the house', () => {
  it('keeps areas apart: none imports another, and the platform imports none', () => {
    const crossing = breaches(
      (file, imported) =>
        areaOf(file) !== '' && areaOf(imported) !== '' && areaOf(imported) !== 'platform' && areaOf(imported) !== areaOf(file),
    );
    expect(crossing).to.deep.equal([]);
    expect(code.filter((file) => areaOf(file) !== '')).to.have.length.above(50);
  });

  it('keeps SQL, NATS and gRPC out of handlers, and what crosses workspaces out of their reach', () => {
    const isHandler = (file: string) => areaOf(file) !== 'platform' && /^services\/[a-z]+\/handlers(\/|\.ts)/.test(file);
    expect(
      breaches(
        (file, imported) => isHandler(file) && (/^(knex|mysql2|@grpc\/|@nats-io\/)/.test(imported) || imported.includes('-system.ts')),
      ),
    ).to.deep.equal([]);
    const raw = code.filter((file) => isHandler(file) && /\.raw\(|\bquery\(/.test(readFileSync(file, 'utf8')));
    expect(raw).to.deep.equal([]);
  });

  it('reads the environment in one place', () => {
    const readers = code.filter((file) => /^(services|envoy)\//.test(file) && readFileSync(file, 'utf8').includes('process.env'));
    expect(readers.sort()).to.deep.equal(
      ['services/platform/config.ts', 'services/platform/module.ts', 'services/platform/telemetry.ts'].sort(),
    );
  });

  it('loads the library of object stores only where one is configured', () => {
    const eager = code.filter((file) => /^(import|export) (?!type )[^;]*'@(aws-sdk|smithy)\//m.test(readFileSync(file, 'utf8')));
    expect(eager).to.deep.equal([]);
    expect(code.filter((file) => readFileSync(file, 'utf8').includes("import('@aws-sdk/client-s3')"))).to.have.length(1);
  });

  it('lets no test forget that the address of the broker may hold a password', () => {
    const forgetful = globSync('{services,tests,bench}/**/*.ts').filter((file) =>
      /\bservers: [^\n]*nats/i.test(readFileSync(file, 'utf8')),
    );
    expect(forgetful).to.deep.equal([]);
  });

  it('keeps files short enough to read in one sitting', () => {
    const long = [...code, ...python].filter((file) => readFileSync(file, 'utf8').split('\n').length - 1 > 300);
    expect(long).to.deep.equal([]);
    expect(globSync('proto/**/*.proto').filter((file) => readFileSync(file, 'utf8').split('\n').length - 1 > 400)).to.deep.equal([]);
  });

  it('has no drawers for odds and ends', () => {
    expect([...code, ...python].filter((file) => /(^|\/)(utils?|helpers?|common|manager|index)(\.|\/)/.test(file))).to.deep.equal([]);
  });

  it('names a folder, a module and a contract by one word', () => {
    const contracts = globSync('proto/millrace/*').map((folder) => folder.split('/').at(-1));
    for (const { name, schema } of modules) expect(contracts).to.include(schema && name === 'dispatcher' ? schema : name);
  });
});
