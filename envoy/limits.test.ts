// How often, how long and how much; what is tried again; and what happens when something behind the edge is away.
import { createServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { RetryInfo } from '#gen/google/rpc/error_details.ts';
import { Status } from '#gen/google/rpc/status.ts';
import { AutomationServiceService } from '#gen/millrace/automations/v1/automation_service.ts';
import { GetHealthResponse_Status, HealthServiceService } from '#gen/millrace/health/v1/health_service.ts';
import { IdentityServiceService } from '#gen/millrace/identity/v1/identity_service.ts';
import { Task } from '#gen/millrace/tasks/v1/task.ts';
import { TaskServiceService } from '#gen/millrace/tasks/v1/task_service.ts';
import { type Contract, loadContract } from '#platform/contract.ts';
import { unavailable } from '#platform/errors.ts';
import { toStatus } from '#platform/status.ts';
import { type Bed, startBed } from './testbed/bed.ts';
import { refused, until } from './testbed/calls.ts';

const reasonOf = ({ json }: { json: { details: { reason: string }[] } }) => json.details[0]?.reason;

describe('rate limits at the edge', () => {
  let bed: Bed;
  before(async () => {
    bed = await startBed({ MILLRACE_EDGE_RATE_SCALE: '0.025' }); // COSTLY: 3 a minute and user; CREDENTIAL: 2 a minute and address
  });
  after(() => bed.stop());

  it('are one bucket of a user for REST and gRPC', async () => {
    const tokenOf = (sub: string) => bed.issuer.token(['automations.write', 'automations.read'], { sub });
    const ann = await tokenOf('usr_ann');
    const rest = (token: string) => bed.rest('POST', '/v1/automations:validateSource', { token, body: { source: 'x' } });
    const grpc = (token: string) =>
      bed.grpc(AutomationServiceService.validateSource, AutomationServiceService.validateSource.requestDeserialize(Buffer.alloc(0)), token);

    expect((await rest(ann)).status).to.equal(200);
    await grpc(ann);
    expect((await rest(ann)).status).to.equal(200);

    const reply = await rest(ann);
    expect([reply.status, reply.json.code, reasonOf(reply)]).to.deep.equal([429, status.RESOURCE_EXHAUSTED, 'OVERLOADED']);
    expect(reply.headers['retry-after']).to.equal('20');
    expect(reply.json.details[1]).to.deep.equal({ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '20s' });

    const fault = await refused(grpc(ann));
    expect([fault.code, fault.details]).to.deep.equal([status.RESOURCE_EXHAUSTED, reply.json.message]);
    const details = Status.decode(fault.metadata.get('grpc-status-details-bin')[0] as Buffer).details;
    expect(RetryInfo.decode(details[1]?.value as Buffer).retryDelay?.seconds).to.equal(20);

    expect((await rest(await tokenOf('usr_ben'))).status, 'another user').to.equal(200);
    expect((await bed.rest('GET', '/v1/automations', { token: ann })).status, 'another method').to.equal(200);
    const web = await bed.rest('POST', AutomationServiceService.validateSource.path, {
      token: ann,
      headers: { 'content-type': 'application/grpc-web+proto' },
      body: Buffer.alloc(5),
    });
    expect([web.status, web.headers['grpc-status']]).to.deep.equal([200, '8']);
  });

  it('count addresses where there is no user, whatever the caller claims', async () => {
    const login = (address: string) =>
      bed.rest('POST', '/v1/sessions', { headers: { 'x-forwarded-for': address }, body: { username: 'a', password: 'b' } });
    expect((await login('1.1.1.1')).status).to.equal(200);
    expect((await login('2.2.2.2')).status).to.equal(200);
    const { code } = await refused(bed.grpc(IdentityServiceService.createSession, { username: 'a', password: 'b' }));
    expect(code).to.equal(status.RESOURCE_EXHAUSTED);
    const reply = await login('3.3.3.3');
    expect([reply.status, reply.headers['retry-after']]).to.deep.equal([429, '30']);
  });
});

describe('an edge behind a proxy', () => {
  it('believes as many hops as it is told', async () => {
    const bed = await startBed({ MILLRACE_EDGE_TRUSTED_HOPS: '1', MILLRACE_EDGE_RATE_SCALE: '0.025' });
    try {
      const login = (addresses: string) => bed.rest('POST', '/v1/sessions', { headers: { 'x-forwarded-for': addresses }, body: {} });
      for (const address of ['203.0.113.1', '203.0.113.2', '203.0.113.3']) {
        expect((await login(`6.6.6.6, ${address}`)).status).to.equal(200);
        expect(bed.backend.seen.at(-1)?.metadata.get('x-envoy-external-address')).to.deep.equal([address]);
      }
      await login('203.0.113.1');
      expect((await login('7.7.7.7, 203.0.113.1')).status).to.equal(429);
    } finally {
      await bed.stop();
    }
  });
});

describe('deadlines, sizes and repeats at the edge', () => {
  let bed: Bed;
  let token: string;
  before(async () => {
    bed = await startBed({}, hurried(loadContract('build/image.binpb'), HealthServiceService.getHealth.path, 300));
    token = await bed.issuer.token(['tasks.read', 'tasks.write']);
  });
  after(() => bed.stop());

  it("leave a service the contract's deadline and half a second, whatever the caller asks for", async () => {
    bed.backend.unary(HealthServiceService.getHealth, () => ({ status: GetHealthResponse_Status.SERVING, areas: {} }));
    for (const headers of [{}, { 'grpc-timeout': '1H' }]) {
      const start = Date.now();
      expect((await bed.rest('GET', '/health', { headers })).status).to.equal(200);
      expect((bed.backend.seen.at(-1)?.deadline ?? 0) - start).to.be.within(500, 900); // 300 ms by the contract, as the test changed it
    }
    bed.backend.unary(TaskServiceService.listTasks, () => new Promise(() => undefined));
    const short = await bed.rest('GET', '/v1/tasks', { token, headers: { 'grpc-timeout': '150m' } });
    expect([short.status, short.json.code]).to.deep.equal([504, status.DEADLINE_EXCEEDED]);
    await until('the end at the service', () => bed.backend.seen.at(-1)?.cancelled);
  });

  it('take no body over 4 MiB', async () => {
    const before = bed.backend.seen.length;
    const title = 'x'.repeat(4 * 1024 * 1024);
    const reply = await bed.rest('POST', '/v1/tasks', { token, body: { title } });
    expect([reply.status, reasonOf(reply)]).to.deep.equal([413, 'REQUEST_TOO_LARGE']);
    const fault = await refused(bed.grpc(TaskServiceService.createTask, { task: Task.fromPartial({ title }), requestId: '' }, token));
    expect(fault.code).to.be.oneOf([status.INVALID_ARGUMENT, status.RESOURCE_EXHAUSTED]); // the service may be the first to say it
    expect(bed.backend.seen.slice(before).map(({ request }) => request.length)).to.deep.equal([]);

    bed.backend.unary(TaskServiceService.createTask, ({ task }) => Task.fromPartial({ version: task?.title.length ?? 0 }));
    const large = await bed.rest('POST', '/v1/tasks', { token, body: { title: title.slice(100) } });
    expect([large.status, large.json.version]).to.deep.equal([200, title.length - 100]);
  });

  it('repeat a read that found its server away, and never a write', async () => {
    let asked = 0;
    bed.backend.unary(TaskServiceService.getTask, ({ id }) => {
      asked += 1;
      if (asked < 3) throw toStatus(unavailable('away'));
      return Task.fromPartial({ id });
    });
    expect((await bed.rest('GET', '/v1/tasks/t1', { token })).status).to.equal(200);
    expect(asked).to.equal(3);

    asked = 0;
    bed.backend.unary(TaskServiceService.deleteTask, () => {
      asked += 1;
      throw toStatus(unavailable('away'));
    });
    const reply = await bed.rest('DELETE', '/v1/tasks/t1', { token });
    expect([reply.status, reply.json.message, asked]).to.deep.equal([503, 'away', 1]);
  });
});

describe('an edge whose dependencies are away', () => {
  it('says so, and works again when the keys can be fetched', async () => {
    const bed = await startBed({}, undefined, (issuer) => {
      issuer.isDown = true;
    });
    try {
      const token = await bed.issuer.token(['tasks.read']);
      const reply = await bed.rest('GET', '/v1/tasks', { token });
      expect([reply.status, reply.json.code, reasonOf(reply)]).to.deep.equal([503, status.UNAVAILABLE, 'DEPENDENCY_UNAVAILABLE']);
      expect(reply.headers['retry-after']).to.equal('1');
      expect((await refused(bed.grpc(TaskServiceService.getTask, { id: 'a' }, token))).code).to.equal(status.UNAVAILABLE);
      expect((await bed.rest('GET', '/health')).status).to.equal(200);
      bed.issuer.isDown = false;
      await until('the keys', async () => (await bed.rest('GET', '/v1/tasks', { token })).status === 200);
    } finally {
      await bed.stop();
    }
  });

  it('ends a call to a service that hangs', async () => {
    const silent = createServer(() => undefined);
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const address = `127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const bed = await startBed(
      { MILLRACE_HEALTH_URL: address },
      hurried(loadContract('build/image.binpb'), HealthServiceService.getHealth.path, 100),
    );
    try {
      const reply = await bed.rest('GET', '/health');
      expect([reply.status, reply.json.code, reasonOf(reply)]).to.deep.equal([504, status.DEADLINE_EXCEEDED, 'DEPENDENCY_UNAVAILABLE']);
      const fault = await refused(bed.grpc(HealthServiceService.getHealth, {}));
      expect([fault.code, fault.details]).to.deep.equal([status.DEADLINE_EXCEEDED, reply.json.message]);
    } finally {
      await bed.stop();
      silent.close();
    }
  });

  it('says that a service does not answer', async () => {
    const bed = await startBed();
    try {
      const token = await bed.issuer.token(['tasks.read']);
      expect((await bed.rest('GET', '/v1/tasks', { token })).status).to.equal(200);
      await bed.backend.stop();
      const reply = await bed.rest('GET', '/v1/tasks', { token });
      expect([reply.status, reply.json.code, reasonOf(reply)]).to.deep.equal([503, status.UNAVAILABLE, 'DEPENDENCY_UNAVAILABLE']);
      expect(reply.headers).to.include({ 'retry-after': '1', 'content-type': 'application/json' });
      const fault = await refused(bed.grpc(TaskServiceService.getTask, { id: 'a' }, token));
      expect([fault.code, fault.details]).to.deep.equal([status.UNAVAILABLE, reply.json.message]);
    } finally {
      await bed.stop();
    }
  });
});

function hurried(contract: Contract, path: string, deadlineMs: number): Contract {
  const method = contract.methods.get(path);
  if (!method) throw new Error(`the contract has no ${path}`);
  return { ...contract, methods: new Map([...contract.methods, [path, { ...method, deadlineMs }]]) };
}
