// What those who run it rely on: traces, servers that come back, an admin port that gives nothing away, and HTTP/2.
import { spawn } from 'node:child_process';
import { connect } from 'node:http2';
import { expect } from 'chai';
import { Task } from '#gen/millrace/tasks/v1/task.ts';
import { TaskServiceService, WatchTasksResponse } from '#gen/millrace/tasks/v1/task_service.ts';
import { loadContract } from '#platform/contract.ts';
import { unavailable } from '#platform/errors.ts';
import { toStatus } from '#platform/status.ts';
import { ENVOY_FLAGS } from './bootstrap.ts';
import { startBackend } from './testbed/backend.ts';
import { type Bed, ENVOY, startBed } from './testbed/bed.ts';
import { until } from './testbed/calls.ts';
import { listen } from './testbed/issuer.ts';

describe('the edge in operation', () => {
  let bed: Bed;
  let token: string;
  before(async () => {
    bed = await startBed();
    token = await bed.issuer.token(['tasks.read', 'tasks.write']);
  });
  after(() => bed.stop());

  it('goes on with a server that calls itself unwell, which answers better than the edge could', async () => {
    bed.backend.isServing = false;
    await until('the edge to know', async () =>
      (await bed.admin('GET', '/stats?filter=cluster.tasks.health_check.failure')).body.match(/: [1-9]/),
    );
    expect((await bed.rest('GET', '/v1/tasks/t1', { token })).status).to.equal(200);
    bed.backend.isServing = true;
  });

  it('keeps a server that fails often when it is the only one', async () => {
    bed.backend.unary(TaskServiceService.startTask, () => {
      throw toStatus(unavailable('away'));
    });
    for (let count = 0; count < 30; count += 1)
      expect((await bed.rest('POST', '/v1/tasks/t1:start', { token, body: {} })).json.message).to.equal('away');
    expect((await bed.rest('GET', '/v1/tasks/t1', { token })).status).to.equal(200);
  });

  it('uses a server again as soon as it is back', async () => {
    await bed.backend.stop();
    expect((await bed.rest('GET', '/v1/tasks/t1', { token })).status).to.equal(503);
    const back = await startBackend(bed.contract, bed.backend.address);
    try {
      await until('an answer', async () => (await bed.rest('GET', '/v1/tasks/t1', { token })).status === 200, 3000);
      expect(back.seen.length).to.be.greaterThan(0);
    } finally {
      await back.stop();
    }
  });

  it('shows on its admin port whether it is ready and its numbers, and nothing else', async () => {
    expect((await bed.admin('GET', '/ready')).status).to.equal(200);
    expect((await bed.admin('GET', '/stats/prometheus')).body).to.include('envoy_http_downstream_rq_xx');
    for (const [verb, path] of [
      ['GET', '/config_dump'],
      ['POST', '/quitquitquit'],
      ['GET', '/certs'],
      ['POST', '/logging?level=debug'],
    ] as const)
      expect((await bed.admin(verb, path)).status, path).to.equal(403);
  });

  it('does not share its port with a second edge', async () => {
    const bootstrap = { static_resources: { listeners: [{ ...bedListener(bed), name: 'second' }], clusters: [] } };
    const child = spawn(ENVOY, ['--config-yaml', JSON.stringify(bootstrap), ...ENVOY_FLAGS], { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (data) => {
      said += data;
    });
    try {
      await until('the second edge to give up', () => child.exitCode !== null, 5000);
      expect(child.exitCode).to.not.equal(0);
    } finally {
      child.kill('SIGKILL');
    }
    expect(said).to.include('Address already in use');
  });

  it('ends open calls before it is drained', async () => {
    const own = await startBed();
    try {
      const given = await own.issuer.token(['tasks.read']);
      let release = () => undefined as unknown;
      own.backend.unary(
        TaskServiceService.getTask,
        ({ id }) => new Promise((resolve) => (release = () => resolve(Task.fromPartial({ id })))),
      );
      const work = own.rest('GET', '/v1/tasks/t1', { token: given });
      await until('the call', () => own.backend.seen.some((one) => one.path === TaskServiceService.getTask.path));
      expect((await own.admin('POST', '/drain_listeners?graceful')).status).to.equal(200);
      release();
      expect((await work).json.id).to.equal('t1');
    } finally {
      await own.stop();
    }
  });
});

describe('a server that is named', () => {
  it('is found', async () => {
    const contract = loadContract('build/image.binpb');
    const health = await startBackend(contract);
    let bed: Bed | undefined;
    try {
      bed = await startBed({ MILLRACE_HEALTH_URL: health.address.replace('127.0.0.1', 'localhost') }, contract);
      expect((await bed.rest('GET', '/health')).status).to.equal(200);
      expect(health.seen.length).to.equal(1);
    } finally {
      await bed?.stop();
      await health.stop();
    }
  });
});

describe('REST over HTTP/2', () => {
  it('is the same', async () => {
    const bed = await startBed();
    const session = connect(`http://127.0.0.1:${bed.port}`);
    try {
      const authorization = `Bearer ${await bed.issuer.token(['tasks.read', 'tasks.write'])}`;
      bed.backend.unary(TaskServiceService.deleteTask, (_request, seen) => {
        seen.respond['x-http-code'] = '204';
        return {};
      });
      bed.backend.stream(TaskServiceService.watchTasks, async (_request, send) =>
        send(WatchTasksResponse.fromPartial({ deletedId: 'tsk_1' })),
      );
      const ask = (headers: Record<string, string>) =>
        new Promise<{ headers: Record<string, unknown>; body: string }>((resolve, reject) => {
          const stream = session.request({ authorization, ...headers });
          let body = '';
          let got: Record<string, unknown> = {};
          stream.on('response', (given) => {
            got = given;
          });
          stream.on('data', (data) => {
            body += data;
          });
          stream.on('end', () => resolve({ headers: got, body }));
          stream.on('error', reject);
          stream.end();
        });
      const gone = await ask({ ':method': 'DELETE', ':path': '/v1/tasks/t1' });
      expect([gone.headers[':status'], gone.body]).to.deep.equal([204, '']);
      const events = await ask({ ':path': '/v1/tasks:watch', accept: 'text/event-stream' });
      expect([events.headers['content-type'], events.body]).to.deep.equal(['text/event-stream', 'data: {"deletedId":"tsk_1"}\n\n']);
      expect((await ask({ ':path': '/v1/users' })).headers[':status']).to.equal(403);
    } finally {
      session.destroy();
      await bed.stop();
    }
  });
});

describe('a trace', () => {
  it('goes through the edge when a collector is named', async () => {
    const spans: Buffer[] = [];
    const collector = await listen((request, respond) => {
      const chunks: Buffer[] = [];
      request.on('data', (data) => chunks.push(data));
      request.on('end', () => {
        if (request.url === '/v1/traces') spans.push(Buffer.concat(chunks));
        respond(200, '');
      });
    });
    let bed: Bed | undefined;
    try {
      bed = await startBed({ OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collector.port}` });
      const trace = '0af7651916cd43dd8448eb211c80319c';
      const token = await bed.issuer.token(['tasks.read']);
      await bed.rest('GET', '/v1/tasks', { token, headers: { traceparent: `00-${trace}-b7ad6b7169203331-01` } });
      const passed = String(bed.backend.seen.at(-1)?.metadata.get('traceparent')[0]);
      expect(passed)
        .to.match(new RegExp(`^00-${trace}-[0-9a-f]{16}-01$`))
        .and.not.include('b7ad6b7169203331');
      const sent = () => Buffer.concat(spans);
      await until('the span', () => sent().includes(Buffer.from(trace, 'hex')));
      expect(sent().includes('millrace-edge')).to.equal(true);
      expect(sent().includes(token)).to.equal(false);
      await bed.rest('GET', '/v1/tasks', { token });
      expect(String(bed.backend.seen.at(-1)?.metadata.get('traceparent')[0])).to.match(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    } finally {
      await bed?.stop();
      collector.server.close();
    }
  });
});

const bedListener = (bed: Bed) => ({
  address: { socket_address: { address: '127.0.0.1', port_value: bed.port } },
  enable_reuse_port: true, // the kernel shares a port when both want it
  filter_chains: [
    {
      filters: [
        {
          name: 'envoy.filters.network.echo',
          typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo' },
        },
      ],
    },
  ],
});
