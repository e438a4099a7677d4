// The peers whose clients and workers are Python.
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Contender, Driver } from './contender.ts';
import * as install from './install.ts';
import { empty, type Server, somePort, start, startClient, startRedis, stopAll } from './servers.ts';

interface Peer extends Omit<Contender, 'install' | 'open'> {
  module: string; // of the client, beside this file
  venv: install.Venv;
  hasLines?: boolean;
  server(): Promise<Place>;
  serverInstall(): Promise<unknown>;
  worker(bin: string, env: Record<string, string>): string[]; // the command and its arguments
}
interface Place {
  server: Server;
  env: Record<string, string>; // for worker and client
}

const ON_DISK = 'on disk (Redis AOF, fsync always) before the answer';
const FIRST_SECONDS = 90; // workers start, and say so by a result

const onRedis = (fsync: boolean): Pick<Peer, 'venv' | 'server' | 'serverInstall'> => ({
  venv: 'queues',
  serverInstall: install.redis,
  async server() {
    const server = await startRedis(fsync);
    return { server, env: { REDIS_PORT: String(server.port), DURABLE: fsync ? '1' : '0' } };
  },
});

const celery = (fsync: boolean): Peer => ({
  ...onRedis(fsync),
  name: fsync ? 'Celery, durable' : 'Celery, default',
  durability: fsync
    ? `${ON_DISK}; acks_late: run again when its worker dies`
    : 'in memory of Redis, a snapshot now and then; lost with its worker',
  isolation: 'none: all tasks in one prefork process',
  burst: 2000,
  module: 'celery_peer',
  worker: (bin) => [join(bin, 'celery'), '-A', 'celery_peer', 'worker', '--pool', 'prefork', '--concurrency', '1', '--loglevel', 'WARNING'],
});

const rq: Peer = {
  ...onRedis(true),
  name: 'RQ',
  durability: `${ON_DISK}; failed when its worker dies`,
  isolation: 'a forked process for each task, without a sandbox; 2 workers',
  burst: 300,
  module: 'rq_peer',
  worker: (bin, { REDIS_PORT }) => [
    ...[join(bin, 'rq'), 'worker-pool', 'peer', '--num-workers', '2', '--quiet'],
    ...['--url', `redis://127.0.0.1:${REDIS_PORT}`],
  ],
};

const dramatiq: Peer = {
  ...onRedis(true),
  name: 'Dramatiq',
  durability: `${ON_DISK}; run again when its worker dies`,
  isolation: 'none: all tasks in 8 threads of one process',
  burst: 1000,
  module: 'dramatiq_peer',
  worker: (bin) => [join(bin, 'dramatiq'), '--processes', '1', '--threads', '8', 'dramatiq_peer'],
};

// `tuned`: a write-ahead log, and without the limit of 20 hand-overs a second that one shard has.
const temporal = (tuned: boolean): Peer => ({
  name: tuned ? 'Temporal dev server, tuned' : 'Temporal dev server',
  durability: `on disk (SQLite${tuned ? ', WAL, synchronous=full' : ', its default'}) before the answer; steps go on after the death of any process`,
  isolation: 'none: all tasks in 100 threads of one process',
  burst: tuned ? 300 : 60,
  module: 'temporal_peer',
  venv: 'queues',
  serverInstall: install.temporal,
  async server() {
    const { command, env } = await install.temporal();
    const port = await somePort();
    const data = join(empty('temporal'), 'temporal.db');
    const faster = ['--sqlite-pragma', 'journal_mode=wal', '--sqlite-pragma', 'synchronous=full'];
    const limit = ['--dynamic-config-value', 'history.transferProcessorMaxPollRPS=2000'];
    const args = [
      'server',
      'start-dev',
      '--headless',
      '--ip',
      '127.0.0.1',
      '--port',
      String(port),
      '--db-filename',
      data,
      '--log-level',
      'error',
    ];
    const server = await start({ name: 'temporal', command, args: [...args, ...(tuned ? [...faster, ...limit] : [])], env, port });
    return { server, env: { TEMPORAL_PORT: String(port) } };
  },
  worker: (bin) => [join(bin, 'python'), join(import.meta.dirname, 'temporal_worker.py')],
});

const prefect: Peer = {
  name: 'Prefect',
  durability: 'SQLite without fsync at each commit; results in files',
  isolation: 'none: no-ops in threads of a task worker, sequences in the process of the flow',
  burst: 30,
  module: 'prefect_peer',
  venv: 'prefect',
  hasLines: true,
  serverInstall: async () => undefined,
  async server() {
    const bin = await install.python('prefect');
    const port = await somePort();
    const folder = empty('prefect');
    const env = {
      PREFECT_HOME: folder,
      PREFECT_PROFILES_PATH: join(folder, 'profiles.toml'),
      PREFECT_API_URL: `http://127.0.0.1:${port}/api`,
      PREFECT_SERVER_ANALYTICS_ENABLED: 'false',
      DO_NOT_TRACK: '1',
    };
    const args = ['server', 'start', '--host', '127.0.0.1', '--port', String(port)];
    return { server: await start({ name: 'prefect', command: join(bin, 'prefect'), args, env, port }), env };
  },
  worker: (bin) => [join(bin, 'python'), join(import.meta.dirname, 'prefect_peer.py')],
};

// Its scheduler runs the tasks, in processes that it forks; parts as `airflow standalone` has them, but for the triggerer, which nothing here needs.
const airflow: Peer = {
  name: 'Airflow',
  durability: 'on disk (SQLite, WAL) before the answer; failed when its worker dies, unless retries are set',
  isolation: 'a forked process for each task, without a sandbox; 2 workers',
  burst: 20,
  paced: 20,
  module: 'airflow_peer',
  venv: 'airflow',
  hasLines: true,
  serverInstall: async () => undefined,
  async server() {
    const command = join(await install.python('airflow'), 'airflow');
    const port = await somePort();
    const url = `http://127.0.0.1:${port}`;
    const env = {
      AIRFLOW_HOME: empty('airflow'),
      AIRFLOW__CORE__DAGS_FOLDER: join(import.meta.dirname, 'airflow_dags'),
      AIRFLOW__CORE__EXECUTOR: 'LocalExecutor',
      AIRFLOW__CORE__PARALLELISM: '2',
      AIRFLOW__CORE__LOAD_EXAMPLES: 'False',
      AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS: 'True',
      AIRFLOW__CORE__EXECUTION_API_SERVER_URL: `${url}/execution/`,
      AIRFLOW__API__HOST: '127.0.0.1',
      AIRFLOW__API__PORT: String(port),
      AIRFLOW__API__WORKERS: '1',
      AIRFLOW__API__BASE_URL: url,
      AIRFLOW__API_AUTH__JWT_SECRET: randomBytes(64).toString('hex'),
      AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT: String(await somePort()),
      AIRFLOW__USAGE_DATA_COLLECTION__ENABLED: 'False',
      PYTHONPATH: import.meta.dirname,
      PYTHONDONTWRITEBYTECODE: '1',
    };
    await promisify(execFile)(command, ['db', 'migrate'], { env: { ...process.env, ...env } });
    const api = await start({ name: 'airflow-api', command, args: ['api-server'], env, port });
    const reader = await start({ name: 'airflow-dags', command, args: ['dag-processor'], env });
    return { server: { port, stop: () => stopAll([api, reader]) }, env };
  },
  worker: (bin) => [join(bin, 'airflow'), 'scheduler'],
};

export const pythonPeers: readonly Contender[] = [
  celery(true),
  celery(false),
  rq,
  dramatiq,
  temporal(false),
  temporal(true),
  prefect,
  airflow,
].map((peer) => ({
  ...peer,
  async install() {
    await peer.serverInstall();
    await install.python(peer.venv);
  },
  open: () => open(peer),
}));

async function open(peer: Peer): Promise<Driver> {
  const bin = await install.python(peer.venv);
  const { server, env: own } = await peer.server();
  const env = { ...own, PYTHONPATH: import.meta.dirname, PYTHONDONTWRITEBYTECODE: '1' };
  const [command = '', ...args] = peer.worker(bin, own);
  const worker = await start({ name: `${peer.module}-worker`, command, args, env });
  const client = startClient({ name: peer.module, command: join(bin, 'python'), args: ['client.py', peer.module], env });
  const close = async () => {
    await client.close();
    await stopAll([server, worker]);
  };
  try {
    await client.ask({ op: 'once' }, FIRST_SECONDS);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    burst: (count) => client.ask({ op: 'burst', count }),
    once: () => client.ask({ op: 'once' }),
    sequence: (count, n) => client.ask({ op: 'sequence', count, n }),
    ...(peer.hasLines ? { lines: (count: number) => client.ask<number[]>({ op: 'lines', count }) } : {}),
    close,
  };
}
