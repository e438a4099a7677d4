import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { databaseUrl, poolMiB } from './database.ts';
import { automationEnvironment, edgeEnvironment, serviceEnvironment, type Wiring } from './environment.ts';
import { StartFault, tellFault, wayOut } from './faults.ts';
import { freePort, isFree, keepPorts, publicPort } from './ports.ts';
import { LEAST_MIB, needRoom } from './room.ts';
import { partsOf, wire } from './wire.ts';

const OUTER = {
  PATH: '/usr/bin',
  HOME: '/home/ann',
  AWS_SECRET_ACCESS_KEY: 'canary',
  MILLRACE_LOG_LEVEL: 'debug',
  MILLRACE_IDENTITY_ACCESS_SECONDS: '60',
};

describe('the environments of parts', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'millrace-environment-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));
  const wiring = (more: Parameters<typeof wire>[0] = {}): Promise<Wiring> => wire({ dataDir: folder, outer: OUTER, ...more });

  it('hold nothing of the caller but what was meant for them', async () => {
    const w = await wiring();
    for (const env of [serviceEnvironment(w, 'api'), automationEnvironment(w, 'automation'), edgeEnvironment(w)]) {
      expect(Object.values(env)).not.to.include('canary');
      expect(env).to.include({ PATH: '/usr/bin', MILLRACE_LOG_LEVEL: 'debug' });
    }
    expect(serviceEnvironment(w, 'api')).to.include({ MILLRACE_IDENTITY_ACCESS_SECONDS: '60' });
    expect(edgeEnvironment(w)).not.to.have.property('MILLRACE_IDENTITY_ACCESS_SECONDS');
  });

  it('hold what the AWS SDK reads only where it is needed: a bucket is named, and no key', async () => {
    const bucket = { MILLRACE_BLOB_S3_BUCKET: 'bucket' };
    const w = await wiring({ outer: { ...OUTER, ...bucket } });
    expect(Object.values(serviceEnvironment(w, 'api'))).to.include('canary');
    for (const env of [serviceEnvironment(w, 'dispatcher'), automationEnvironment(w, 'automation'), edgeEnvironment(w)])
      expect(Object.values(env)).not.to.include('canary');
    const keyed = await wiring({ outer: { ...OUTER, ...bucket, MILLRACE_BLOB_S3_ACCESS_KEY: 'id' } });
    expect(Object.values(serviceEnvironment(keyed, 'api'))).not.to.include('canary');
  });

  it('keep the database, the broker and the secrets of identity from where scripts run and from the edge', async () => {
    const w = await wiring();
    for (const env of [automationEnvironment(w, 'automation'), edgeEnvironment(w)]) {
      const text = JSON.stringify(env);
      for (const secret of [w.secrets.databasePassword, w.secrets.keySecretFile, w.secrets.adminPasswordFile, w.natsUrl])
        expect(text).not.to.include(secret);
    }
    expect(JSON.stringify(serviceEnvironment(w, 'dispatcher'))).not.to.include(w.secrets.keySecretFile);
  });

  it('give secrets by file, except those in addresses', async () => {
    const env = serviceEnvironment(await wiring(), 'api');
    expect(env.MILLRACE_IDENTITY_KEY_SECRET).to.equal(undefined);
    expect(readFileSync(env.MILLRACE_IDENTITY_KEY_SECRET_FILE ?? '', 'utf8').trim()).to.have.length(44);
  });

  it('tell each process where the areas are that others run, and none that it runs itself', async () => {
    const w = await wiring({
      processes: { one: ['identity', 'tasks'], two: ['health', 'automations', 'executions'], three: ['dispatcher'] },
    });
    const [one, two, three] = ['one', 'two', 'three'].map((name) => serviceEnvironment(w, name));
    expect(one).to.not.have.any.keys('MILLRACE_IDENTITY_URL', 'MILLRACE_TASKS_URL', 'MILLRACE_IDENTITY_JWKS_URL');
    expect(one?.MILLRACE_EXECUTIONS_URL).to.equal(two?.MILLRACE_GRPC_ADDRESS);
    expect(two?.MILLRACE_TASKS_URL).to.equal(one?.MILLRACE_GRPC_ADDRESS);
    expect(two?.MILLRACE_IDENTITY_JWKS_URL).to.equal(`http://${one?.MILLRACE_ADMIN_ADDRESS}/jwks`);
    expect(three).to.include({
      MILLRACE_TARGET: 'dispatcher',
      MILLRACE_TASKS_URL: one?.MILLRACE_GRPC_ADDRESS,
      MILLRACE_RUNNER_URL: automationEnvironment(w, 'automation').MILLRACE_AUTOMATION_ADDRESS,
    });
  });

  it('leave out the parts that are given by an address', async () => {
    const names = (w: Wiring) =>
      partsOf(w, undefined)
        .flat()
        .map(({ name }) => name);
    expect(names(await wiring())).to.deep.equal(['database', 'broker', 'api', 'dispatcher', 'automation', 'builder', 'edge']);
    const given = {
      MILLRACE_DATABASE_URL: 'mysql://u:p@db:3306/',
      MILLRACE_NATS_URL: 'nats://broker:4222',
      MILLRACE_RUNNER_URL: 'runner:7000',
    };
    const w = await wiring({ outer: { ...OUTER, ...given } });
    expect(names(w)).to.deep.equal(['api', 'dispatcher', 'edge']);
    expect(serviceEnvironment(w, 'api')).to.include(given);
  });

  it('are separate for two stacks', async () => {
    const [one, two] = [await wire({ outer: OUTER }), await wire({ outer: OUTER })];
    expect(one.layout.root).not.to.equal(two.layout.root);
    expect(one.databasePrefix).not.to.equal(two.databasePrefix);
    expect(one.natsPrefix).not.to.equal(two.natsPrefix);
    expect(Object.values(one.ports).filter((port) => Object.values(two.ports).includes(port))).to.deep.equal([]);
    for (const { layout } of [one, two]) rmSync(layout.root, { recursive: true });
  });
});

describe('the address of the database', () => {
  it('names its socket where a socket may have that path', () => {
    const socketOf = (folder: string) => new URL(databaseUrl(3306, 'p@ss', folder)).searchParams.get('socketPath');
    expect(socketOf('/a b/mysql')).to.equal('/a b/mysql/mysql.sock');
    expect(socketOf(`/${'f'.repeat(95)}`)).to.have.length(107);
    expect(socketOf(`/${'f'.repeat(96)}`), 'too long').to.equal(null);
    expect(databaseUrl(3306, 'p@ss')).to.equal('mysql://millrace:p%40ss@127.0.0.1:3306/');
  });
  it('comes with a cache that suits the machine', () => {
    expect([1, 8, 24].map((gib) => poolMiB(gib * 2 ** 30))).to.deep.equal([256, 512, 1024]);
  });
});

describe('ports', () => {
  const listen = async (host: string): Promise<{ port: number; close: () => void }> => {
    const server = createServer();
    const port = await freePort();
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, host, resolve));
    return { port, close: () => server.close() };
  };

  it('are not free when something listens on either address of localhost, or on all', async () => {
    for (const host of ['127.0.0.1', '0.0.0.0', '::1', '::']) {
      const other = await listen(host);
      expect(await isFree(other.port), host).to.equal(false);
      other.close();
    }
  });

  it('stay the same from start to start, except those that were taken meanwhile', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'millrace-ports-'));
    const file = join(folder, 'state.json');
    const first = await keepPorts(file, ['a', 'b', 'c']);
    expect(new Set(Object.values(first)).size).to.equal(3);
    expect(await keepPorts(file, ['a', 'b', 'c'])).to.deep.equal(first);
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(first.b, '127.0.0.1', resolve));
    const second = await keepPorts(file, ['a', 'b', 'c']);
    other.close();
    expect([second.a, second.c]).to.deep.equal([first.a, first.c]);
    expect(second.b).not.to.equal(first.b);
    rmSync(folder, { recursive: true });
  });

  it('are counted up from the preferred one in public', async () => {
    const other = await listen('127.0.0.1');
    expect(await publicPort(other.port)).to.be.greaterThan(other.port);
    other.close();
  });
});

describe('the way out', () => {
  it('of a full disk is to make room: what keeps data is not started on it', () => {
    needRoom(tmpdir(), 'the database');
    let fault: unknown;
    try {
      needRoom('/proc', 'the database'); // which never has any
    } catch (error) {
      fault = error;
    }
    expect(tellFault(fault)).to.equal(
      `millrace: the disk of /proc has 0 MiB left; the database is started with ${LEAST_MIB} MiB or more\nThe way out: make room on it.`,
    );
  });

  it('is told for what is known to go wrong', () => {
    const known: [string, RegExp][] = [
      ['Error: listen EADDRINUSE: address already in use 127.0.0.1:21000', /another process uses its port/],
      ["[ERROR] Can't start server: Bind on TCP/IP port. Got error: 98: Address already in use", /another process uses its port/],
      ['[ERROR] InnoDB: preallocating 100663296 bytes for file ./ib_logfile101 failed with error 28', /disk is full/],
      ["Access denied for user 'millrace'@'127.0.0.1' (using password: YES)", /MILLRACE_DATABASE_URL/],
      ["ModuleNotFoundError: No module named 'grpc'", /make doctor/],
      ["/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found", /too old/],
    ];
    for (const [line, way] of known) expect(wayOut(['something', line], 'read the log'), line).to.match(way);
    expect(wayOut(['something odd'], 'read the log')).to.equal('read the log');
  });
  it('stands after the last lines', () => {
    expect(tellFault(new StartFault('it failed', 'mend it', ['a', 'b']))).to.equal(
      'millrace: it failed\n  | a\n  | b\nThe way out: mend it.',
    );
  });
});
