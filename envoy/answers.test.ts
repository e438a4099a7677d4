// What a caller gets: statuses, bodies and headers of REST, the same faults by gRPC and gRPC-Web, and nothing of what is behind.
import { connect } from 'node:net';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { ErrorInfo } from '#gen/google/rpc/error_details.ts';
import { Status } from '#gen/google/rpc/status.ts';
import { IdentityServiceService } from '#gen/millrace/identity/v1/identity_service.ts';
import { Task, Task_State } from '#gen/millrace/tasks/v1/task.ts';
import { TaskServiceService } from '#gen/millrace/tasks/v1/task_service.ts';
import { exhausted, invalid, notFound } from '#platform/errors.ts';
import { toStatus } from '#platform/status.ts';
import { type Bed, startBed } from './testbed/bed.ts';
import { refused, until } from './testbed/calls.ts';

const ORIGIN = 'https://console.test';
const frame = (message: Uint8Array): Buffer => {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
};

describe('answers at the edge', () => {
  let bed: Bed;
  let token: string;
  before(async () => {
    bed = await startBed({ MILLRACE_EDGE_CORS_ORIGINS: `${ORIGIN},https://other.test` });
    token = await bed.issuer.token(['tasks.read', 'tasks.write']);
    bed.backend.unary(TaskServiceService.getTask, ({ id }) => {
      if (id === 'missing') throw toStatus(notFound('task', id));
      if (id === 'busy') throw toStatus(exhausted('too much at once', 1500));
      if (id === 'invalid') throw toStatus(invalid('title', 'is too long'));
      return Task.fromPartial({ id, title: 'a', state: Task_State.PENDING });
    });
    bed.backend.unary(TaskServiceService.listTasks, ({ text }) => ({ tasks: [Task.fromPartial({ title: text })], nextPageToken: '' }));
    bed.backend.unary(TaskServiceService.createTask, ({ task }, seen) => {
      Object.assign(seen.respond, { 'x-http-code': '201', location: '/v1/tasks/t9' });
      return Task.fromPartial({ ...task, id: 't9' });
    });
    bed.backend.unary(TaskServiceService.deleteTask, (_request, seen) => {
      seen.respond['x-http-code'] = '204';
      return {};
    });
  });
  after(() => bed.stop());

  it('are camelCase JSON with defaults, never cached, and guarded by headers', async () => {
    const { status: code, headers, json } = await bed.rest('GET', '/v1/tasks/t1', { token });
    expect(code).to.equal(200);
    expect(json).to.deep.include({ id: 't1', title: 'a', state: 'PENDING', creatorId: '', version: 0 });
    expect(headers).to.include({
      'content-type': 'application/json',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
      'referrer-policy': 'no-referrer',
    });
    expect(headers['content-security-policy']).to.match(/^default-src 'none'/);
    expect(headers).to.not.have.any.keys(
      'server',
      'x-http-code',
      'grpc-status',
      'grpc-message',
      'grpc-encoding',
      'strict-transport-security',
    );
    expect(Object.keys(headers).filter((name) => /^x-envoy|^grpc|^x-edge/.test(name))).to.deep.equal([]);
  });

  it('read a query as forms write it', async () => {
    const { json } = await bed.rest('GET', '/v1/tasks?text=two+words%21&states=PENDING', { token });
    expect(json.tasks[0].title).to.equal('two words!');
  });

  it('say 201 and where the new resource is', async () => {
    const { status: code, headers, json } = await bed.rest('POST', '/v1/tasks', { token, body: { title: 'x' } });
    expect([code, headers.location, json.id]).to.deep.equal([201, '/v1/tasks/t9', 't9']);
  });

  it('say 204 without a body, and the connection stays usable', async () => {
    const head = (verb: string, more = '') => `${verb} /v1/tasks/t1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n${more}\r\n`;
    const socket = connect(bed.port, '127.0.0.1');
    socket.write(head('DELETE') + head('DELETE') + head('GET', 'connection: close\r\n')); // a byte too much would be read as the next answer
    let wire = '';
    for await (const chunk of socket) wire += chunk;
    const [first = '', second = '', third = '', body = ''] = wire.split('\r\n\r\n');
    expect([first, second, third].map((one) => one.split('\r\n')[0])).to.deep.equal([
      'HTTP/1.1 204 No Content',
      'HTTP/1.1 204 No Content',
      'HTTP/1.1 200 OK',
    ]);
    expect(first.toLowerCase()).to.not.match(/\n(content-length|content-type|transfer-encoding):/);
    expect(JSON.parse(body).id).to.equal('t1');
  });

  it('take no failure from x-http-code, except where the answer is bytes', async () => {
    for (const code of ['500', '302', '400', '0', 'abc', '20x']) {
      bed.backend.unary(TaskServiceService.startTask, (_request, seen) => {
        seen.respond['x-http-code'] = code;
        return Task.fromPartial({ id: code });
      });
      const reply = await bed.rest('POST', '/v1/tasks/t1:start', { token, body: {} });
      expect([reply.status, reply.headers['x-http-code']], code).to.deep.equal([200, undefined]);
    }
  });

  it('pass a form on as it is, and the errors of OAuth 2.0 back', async () => {
    const form = 'grant_type=password&username=a%40b.c&password=x+y%26';
    bed.backend.unary(IdentityServiceService.issueToken, ({ form: given }, seen) => {
      const isRight = given?.data.toString() === form && given.contentType === 'application/x-www-form-urlencoded';
      if (!isRight) Object.assign(seen.respond, { 'x-http-code': '400', 'cache-control': 'private' });
      const body = isRight ? { access_token: 't', token_type: 'Bearer', expires_in: 900 } : { error: 'invalid_request' };
      return { contentType: 'application/json', data: Buffer.from(JSON.stringify(body)), extensions: [] };
    });
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    const right = await bed.rest('POST', '/oauth2/token', { headers, body: form });
    expect([right.status, right.json]).to.deep.equal([200, { access_token: 't', token_type: 'Bearer', expires_in: 900 }]);
    const wrong = await bed.rest('POST', '/oauth2/token', { headers, body: 'grant_type=none' });
    expect([wrong.status, wrong.json, wrong.headers['content-type']]).to.deep.equal([
      400,
      { error: 'invalid_request' },
      'application/json',
    ]);
    expect(wrong.headers['cache-control']).to.equal('private');
  });

  it("carry a service's fault whole", async () => {
    const missing = await bed.rest('GET', '/v1/tasks/missing', { token });
    expect(missing.status).to.equal(404);
    expect(missing.json).to.deep.equal({
      code: status.NOT_FOUND,
      message: 'there is no task missing in this workspace',
      details: [
        {
          '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
          reason: 'RESOURCE_NOT_FOUND',
          domain: 'millrace',
          metadata: { resource: 'task', id: 'missing' },
        },
      ],
    });
    const wrong = await bed.rest('GET', '/v1/tasks/invalid', { token });
    expect(wrong.status).to.equal(400);
    expect(wrong.json.details[1].fieldViolations[0]).to.include({ field: 'title', description: 'is too long' });
    expect(Object.keys(wrong.headers).filter((name) => name.startsWith('grpc'))).to.deep.equal([]);
    const busy = await bed.rest('GET', '/v1/tasks/busy', { token });
    expect([busy.status, busy.headers['retry-after'], busy.json.details[1].retryDelay]).to.deep.equal([429, '2', '1.500s']);
  });

  it('say what is wrong with a request that does not fit the contract', async () => {
    const cases: [string, string, unknown, string][] = [
      ['GET', '/v1/tasks?foo=1', undefined, 'Could not find field "foo"'],
      ['GET', '/v1/tasks?pageSize=abc', undefined, 'page_size: invalid value "abc"'],
      ['GET', '/v1/tasks/t1?id=t2', undefined, 'id is given by the path already'],
      ['GET', '/v1/tasks/t1?%69%64=t2', undefined, 'id is given by the path already'],
      ['GET', '/v1/tasks/t1/comments?pageSize=1&taskId=t2', undefined, 'taskId is given by the path already'],
      ['GET', '/v1/tasks/t1/comments?task_id=t2', undefined, 'task_id is given by the path already'],
      ['POST', '/v1/automations/a/executions?execution.automationId=b', {}, 'execution.automationId is given by the path already'],
      ['POST', '/v1/tasks', '{"title":', 'Unexpected end of string'],
      ['POST', '/v1/tasks', { priority: 'NOPE' }, 'task.priority: invalid value "NOPE"'],
    ];
    for (const [verb, path, body, message] of cases) {
      const reply = await bed.rest(verb, path, { token, body });
      expect([reply.status, reply.json.code, reply.json.details[0].reason], path).to.deep.equal([400, 3, 'REQUEST_MALFORMED']);
      expect(reply.json.message)
        .to.match(/^the request does not fit the contract: /)
        .and.include(message);
      expect(reply.headers['content-type']).to.equal('application/json');
    }
    const unserved = await bed.rest('PUT', '/v1/tasks', { token, body: {} });
    expect([unserved.status, unserved.json.code, unserved.json.details[0].reason]).to.deep.equal([404, 5, 'ROUTE_NOT_FOUND']);
  });

  it('never name what is behind', async () => {
    const replies = await Promise.all([
      bed.rest('GET', '/nothing'),
      bed.rest('GET', '/v1/me'),
      bed.rest('GET', '/v1/users', { token }),
      bed.rest('GET', '/v1%2Fme'),
    ]);
    for (const { body, headers } of replies) {
      expect(body.toLowerCase()).to.not.match(/envoy|jwt|rbac|upstream|cluster/);
      expect(headers).to.include({ 'content-type': 'application/json', 'x-content-type-options': 'nosniff', 'cache-control': 'no-store' });
    }
  });

  it('are a status with the same details for gRPC', async () => {
    const fault = await refused(bed.grpc(TaskServiceService.getTask, { id: 'a' }));
    expect(fault.code).to.equal(status.UNAUTHENTICATED);
    const { code, message, details } = Status.decode(fault.metadata.get('grpc-status-details-bin')[0] as Buffer);
    expect([code, message]).to.deep.equal([fault.code, fault.details]);
    expect(ErrorInfo.decode(details[0]?.value as Buffer)).to.deep.include({ reason: 'TOKEN_MISSING', domain: 'edge.millrace' });
    expect(Object.keys(fault.metadata.getMap()).filter((name) => name.startsWith('x-edge'))).to.deep.equal([]);

    const scoped = await refused(bed.grpc(TaskServiceService.getTask, { id: 'a' }, await bed.issuer.token([])));
    const info = Status.decode(scoped.metadata.get('grpc-status-details-bin')[0] as Buffer).details[0]?.value as Buffer;
    expect(ErrorInfo.decode(info)).to.deep.include({ reason: 'PERMISSION_MISSING', metadata: { permission: 'tasks.read' } });

    const own = await refused(bed.grpc(TaskServiceService.getTask, { id: 'missing' }, token));
    expect([own.code, own.details]).to.deep.equal([status.NOT_FOUND, 'there is no task missing in this workspace']);
  });

  it('speak gRPC-Web, whose faults have their code in a header', async () => {
    const path = TaskServiceService.getTask.path;
    const call = (type: string, body: string | Buffer, given?: string) =>
      bed.rest('POST', path, { ...(given ? { token: given } : {}), headers: { 'content-type': type, accept: type, origin: ORIGIN }, body });
    const request = frame(TaskServiceService.getTask.requestSerialize({ id: 'web' }));

    const binary = await call('application/grpc-web+proto', request, token);
    expect([binary.status, binary.headers['content-type']]).to.deep.equal([200, 'application/grpc-web+proto']);
    expect(binary.body).to.include('web').and.include('grpc-status:0');
    expect(binary.headers['access-control-allow-origin']).to.equal(ORIGIN);

    const text = await call('application/grpc-web-text', request.toString('base64'), token);
    expect(Task.decode(Buffer.from(text.body, 'base64').subarray(5, 5 + Buffer.from(text.body, 'base64').readUInt32BE(1))).id).to.equal(
      'web',
    );

    const missing = await call('application/grpc-web+proto', request);
    expect([missing.status, missing.headers['grpc-status']]).to.deep.equal([200, '16']);
    expect(decodeURIComponent(String(missing.headers['grpc-message']))).to.match(/^the call needs a token/);
    expect(missing.headers['grpc-status-details-bin']).to.be.a('string');
    expect(missing.headers).to.not.have.property('x-edge-grpc-code');
  });

  it('let the pages of named origins call, and no others', async () => {
    const preflight = (origin: string, path = '/v1/tasks') =>
      bed.rest('OPTIONS', path, {
        headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,idempotency-key' },
      });
    const before = bed.backend.seen.length;
    const allowed = await preflight(ORIGIN);
    expect(allowed.status).to.equal(200);
    expect(allowed.headers['access-control-allow-origin']).to.equal(ORIGIN);
    expect(allowed.headers['access-control-allow-headers']).to.include('authorization').and.include('idempotency-key');
    expect(allowed.headers).to.not.have.property('access-control-allow-credentials');
    expect((await preflight('https://evil.test')).headers).to.not.have.property('access-control-allow-origin');
    expect((await preflight(`${ORIGIN}.evil.test`)).headers).to.not.have.property('access-control-allow-origin');
    expect(bed.backend.seen.length).to.equal(before);

    const refusal = await bed.rest('GET', '/v1/tasks', { headers: { origin: ORIGIN } });
    expect([refusal.status, refusal.headers['access-control-allow-origin']]).to.deep.equal([401, ORIGIN]);
    expect((await bed.rest('GET', '/v1/tasks', { headers: { origin: 'https://evil.test' } })).headers).to.not.have.property(
      'access-control-allow-origin',
    );
    expect((await bed.rest('OPTIONS', '/v1/tasks', { headers: { origin: ORIGIN } })).status).to.equal(404);
  });

  it('are logged without query strings and tokens', async () => {
    const reply = await bed.rest('GET', '/v1/tasks?text=secret-in-query', { token });
    const requestId = reply.headers['x-request-id'];
    const line = await until('the access log', () =>
      bed
        .logged()
        .split('\n')
        .find((one) => one.includes(String(requestId))),
    );
    expect(JSON.parse(line)).to.deep.include({
      method: 'GET',
      path: '/v1/tasks',
      route: '/millrace.tasks.v1.TaskService/ListTasks',
      status: 200,
      grpcStatus: 'OK',
      flags: '-',
      user: 'usr_a',
      address: '127.0.0.1',
    });
    expect(bed.logged()).to.not.include('secret-in-query').and.not.include(token);
  });
});

describe('an edge with a public https address', () => {
  it('asks browsers to stay with https', async () => {
    const bed = await startBed({ MILLRACE_PUBLIC_URL: 'https://millrace.test/' });
    try {
      for (const path of ['/health', '/nothing', '/v1%2Fme'])
        expect((await bed.rest('GET', path)).headers['strict-transport-security'], path).to.equal('max-age=31536000; includeSubDomains');
    } finally {
      await bed.stop();
    }
  });
});
