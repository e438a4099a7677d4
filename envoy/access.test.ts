// Who passes: every method of the contract by REST and by gRPC, attempts to get around, and headers that lie.
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { HealthService } from '#gen/grpc/health/v1/health.ts';
import { TaskServiceService } from '#gen/millrace/tasks/v1/task_service.ts';
import type { Method } from '#platform/contract.ts';
import { isServed } from './policy.ts';
import { type Bed, startBed } from './testbed/bed.ts';
import { metadataOf, refused, streamed } from './testbed/calls.ts';
import { listen } from './testbed/issuer.ts';

const raw = (method: Method) => ({
  path: method.path,
  requestStream: false as const,
  responseStream: false as const,
  requestSerialize: (bytes: Buffer) => bytes,
  requestDeserialize: (bytes: Buffer) => bytes,
  responseSerialize: (bytes: Buffer) => bytes,
  responseDeserialize: (bytes: Buffer) => bytes,
});
const EMPTY = Buffer.alloc(0);

describe('access at the edge', () => {
  let bed: Bed;
  let served: Method[];
  let allScopes: string[];
  before(async () => {
    bed = await startBed({ MILLRACE_EDGE_RATE_SCALE: '0' });
    served = [...bed.contract.methods.values()].filter(isServed);
    allScopes = [...new Set(served.map((method) => method.scope).filter(Boolean))];
  });
  after(() => bed.stop());

  const calls = () =>
    served.flatMap((method) =>
      method.bindings.map(({ verb, path, body }) => ({ method, verb, path: path.replace(/\{[^}]+\}/g, '1'), body })),
    );
  const reached = async (work: Promise<unknown>): Promise<string | undefined> => {
    const before = bed.backend.seen.length;
    await work;
    const added = bed.backend.seen.slice(before);
    expect(added.length).to.be.at.most(1);
    return added[0]?.path;
  };
  const send = (verb: string, path: string, body: string, token?: string) =>
    bed.rest(verb, path, { ...(token ? { token } : {}), ...(body ? { body: {} } : {}) });

  const call = (method: Method, token?: string): Promise<unknown> =>
    method.isStream ? streamed(bed.client, raw(method), EMPTY, metadataOf(token)) : bed.grpc(raw(method), EMPTY, token);

  it('has methods to check', () => {
    expect(served.length).to.be.greaterThan(30);
    expect(new Set(served.map((method) => method.access))).to.deep.equal(new Set(['PUBLIC', 'AUTHENTICATED', 'PERMISSION']));
  });

  it('lets a REST call with the right token reach exactly its method', async () => {
    for (const { method, verb, path, body } of calls()) {
      const token = method.access === 'PUBLIC' ? undefined : await bed.issuer.token(method.scope ? [method.scope] : []);
      expect(await reached(send(verb, path, body, token)), `${verb} ${path}`).to.equal(method.path);
    }
  });

  it('refuses a REST call without a token unless the method is public', async () => {
    for (const { method, verb, path, body } of calls()) {
      const work = send(verb, path, body);
      const isPublic = method.access === 'PUBLIC';
      expect(await reached(work), `${verb} ${path}`).to.equal(isPublic ? method.path : undefined);
      if (isPublic) continue;
      const { status: code, json } = await work;
      expect([code, json.code, json.details[0].reason], `${verb} ${path}`).to.deep.equal([401, status.UNAUTHENTICATED, 'TOKEN_MISSING']);
    }
  });

  it('refuses a REST call whose token holds every permission but the one', async () => {
    for (const { method, verb, path, body } of calls().filter(({ method }) => method.access === 'PERMISSION')) {
      const token = await bed.issuer.token(allScopes.filter((scope) => scope !== method.scope));
      const work = send(verb, path, body, token);
      expect(await reached(work), `${verb} ${path}`).to.equal(undefined);
      const { status: code, json } = await work;
      expect(code, `${verb} ${path}`).to.equal(403);
      expect(json).to.deep.equal({
        code: status.PERMISSION_DENIED,
        message: `the token does not hold the permission ${method.scope}`,
        details: [
          {
            '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
            reason: 'PERMISSION_MISSING',
            domain: 'edge.millrace',
            metadata: { permission: method.scope },
          },
        ],
      });
    }
  });

  it('holds for gRPC what holds for REST', async () => {
    for (const method of served) {
      const right = await bed.issuer.token(method.scope ? [method.scope] : []);
      const wrong = await bed.issuer.token(allScopes.filter((scope) => scope !== method.scope));
      expect(await reached(call(method, right)), method.path).to.equal(method.path);
      if (method.access === 'PUBLIC') continue;
      const missing = await refused(call(method));
      expect([missing.code, missing.details], method.path).to.deep.equal([
        status.UNAUTHENTICATED,
        'the call needs a token: send the header authorization: Bearer <token>',
      ]);
      if (method.access !== 'PERMISSION') continue;
      const denied = await refused(call(method, wrong));
      expect([denied.code, denied.details], method.path).to.deep.equal([
        status.PERMISSION_DENIED,
        `the token does not hold the permission ${method.scope}`,
      ]);
    }
  });

  it('does not know the methods of services', async () => {
    const internal = [...bed.contract.methods.values()].filter((method) => method.access === 'SERVICE');
    expect(internal.length).to.be.greaterThan(3);
    const token = await bed.issuer.token(allScopes);
    for (const method of internal) {
      const fault = await refused(call(method, token));
      expect([fault.code, fault.details], method.path).to.deep.equal([
        status.UNIMPLEMENTED,
        'nothing is served at this path with this method: see the API description',
      ]);
      const { status: code } = await bed.rest('POST', method.path, { token, body: {} });
      expect(code, method.path).to.equal(404);
    }
    expect(bed.backend.seen.filter(({ path }) => internal.some((method) => method.path === path))).to.deep.equal([]);
  });

  it('gives no way around by the spelling of a path', async () => {
    const token = await bed.issuer.token(['tasks.read']);
    const attempts: [string, string, number[]][] = [
      ['GET', '//v1//users', [403]],
      ['GET', '/v1/tasks/../users', [403]],
      ['GET', '/v1/./users', [403]],
      ['GET', '/v1/%75sers', [403, 404]],
      ['GET', '/v1/users/', [404]],
      ['GET', '/V1/users', [404]],
      ['GET', '/v1/users;x=1', [404]],
      ['GET', '/v1%2Fusers', [400]],
      ['GET', '/v1/tasks%2F..%2Fusers', [400]],
      ['GET', '/v1/tasks%5C..%5Cusers', [400]],
      ['GET', '/v1/tasks/..%00/users', [400]],
      ['HEAD', '/v1/users', [404]],
      ['TRACE', '/v1/users', [400, 404]],
      ['POST', '/millrace.identity.v1.IdentityService/ListUsers', [404]],
      ['GET', '/millrace.identity.v1.IdentityService/ListUsers', [404]],
      ['GET', '/config_dump', [404]],
      ['GET', '/metrics', [404]],
      ['POST', '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo', [404]],
    ];
    const before = bed.backend.seen.length;
    for (const [verb, path, codes] of attempts) {
      const reply = await bed.rest(verb, path, { token, ...(verb === 'POST' ? { body: {} } : {}) });
      expect(reply.status, `${verb} ${path} ${reply.body}`).to.be.oneOf(codes);
    }
    for (const name of ['x-http-method-override', 'x-original-url', 'x-rewrite-url', 'x-envoy-original-path'])
      expect((await bed.rest('GET', '/v1/none', { token, headers: { [name]: '/v1/users' } })).status, name).to.equal(404);
    expect(bed.backend.seen.length).to.equal(before);
  });

  it('refuses tokens that are not for this installation', async () => {
    const scopes = ['tasks.read'];
    const valid = await bed.issuer.token(scopes);
    const [head, body, signature] = valid.split('.');
    const none = Buffer.from(JSON.stringify({ alg: 'none', typ: 'at+jwt' })).toString('base64url');
    const cases: [string, string, string][] = [
      ['expired', await bed.issuer.token(scopes, { exp: 1000 }), 'the token has expired: refresh it or sign in again'],
      ['another issuer', await bed.issuer.token(scopes, { iss: 'http://evil' }), 'the token is not valid here: sign in again'],
      ['another audience', await bed.issuer.token(scopes, { aud: 'other' }), 'the token is for another audience: sign in here'],
      ['no expiry', await bed.issuer.token(scopes, { exp: undefined }), 'the token is not valid here: sign in again'],
      ['no signature', `${none}.${body}.`, 'the token is not valid here: sign in again'],
      ['another signature', `${head}.${body}.${signature?.split('').reverse().join('')}`, 'the token is not valid here: sign in again'],
      ['not a token', 'abc', 'the token is not valid here: sign in again'],
    ];
    for (const [name, token, message] of cases) {
      const { status: code, json } = await bed.rest('GET', '/v1/tasks', { token });
      expect([code, json.details[0].reason, json.message], name).to.deep.equal([401, 'TOKEN_INVALID', message]);
    }
    expect((await bed.rest('GET', `/v1/tasks?access_token=${valid}`)).status).to.be.oneOf([400, 401]);
    const inQuery = await bed.rest('POST', `${TaskServiceService.listTasks.path}?access_token=${valid}`, {
      headers: { 'content-type': 'application/grpc-web+proto' },
      body: Buffer.alloc(5),
    });
    expect(inQuery.headers['grpc-status']).to.equal(String(status.UNAUTHENTICATED));
    expect((await bed.rest('GET', '/v1/tasks', { headers: { cookie: `access_token=${valid}` } })).status).to.equal(401);
    expect((await bed.rest('GET', '/v1/tasks', { headers: { authorization: [`Bearer ${valid}`, 'Bearer abc'] } })).status).to.equal(401);
    expect((await bed.rest('GET', '/v1/tasks', { token: valid })).status).to.equal(200);
  });

  it('passes the token and the idempotency key on, and nothing that lies about the caller', async () => {
    const token = await bed.issuer.token(['tasks.read']);
    const lies = [
      'x-user-id',
      'x-jwt-payload',
      'x-envoy-external-address',
      'x-envoy-retry-on',
      'x-envoy-upstream-rq-timeout-ms',
      'x-millrace-edge',
      'x-http-code',
      'x-tenant',
      'x-real-ip',
      'forwarded',
      'x-forwarded-host',
    ];
    const headers = { ...Object.fromEntries(lies.map((name) => [name, '6.6.6.6'])), 'x-forwarded-for': '6.6.6.6', 'idempotency-key': 'k1' };
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const reply = await bed.rest('GET', '/v1/tasks', { token, headers: { ...headers, traceparent } });
    expect(reply.status).to.equal(200);
    const got = bed.backend.seen.at(-1)?.metadata.getMap() ?? {};
    expect(got).to.include({
      authorization: `Bearer ${token}`,
      'idempotency-key': 'k1',
      'x-envoy-external-address': '127.0.0.1',
      traceparent,
    });
    expect(got['x-request-id']).to.equal(reply.headers['x-request-id']);
    expect(Object.entries(got).filter(([, value]) => String(value).includes('6.6.6.6'))).to.deep.equal([]);
    expect(got).to.not.have.any.keys('x-envoy-internal', 'x-millrace-edge', 'x-jwt-payload', 'x-user-id');
  });

  it('takes no header with an underscore', async () => {
    const { status: code, json } = await bed.rest('GET', '/health', { headers: { x_user_id: '1' } });
    expect([code, json.details[0].reason]).to.deep.equal([400, 'REQUEST_MALFORMED']);
  });
});

describe('reflection and metrics through the edge', () => {
  it('are reachable when a setting says so, and the server knows that the edge asks', async () => {
    const metrics = await listen((request, respond) => respond(200, `asked for ${request.url}`));
    let bed: Bed | undefined;
    try {
      bed = await startBed({
        MILLRACE_EDGE_REFLECTION: 'true',
        MILLRACE_EDGE_METRICS: 'true',
        MILLRACE_METRICS_ADDRESS: `127.0.0.1:${metrics.port}`,
      });
      expect((await bed.rest('GET', '/metrics')).body).to.equal('asked for /metrics');
      expect(await bed.grpc(HealthService.check, { service: '' }, undefined, { 'x-millrace-edge': 'lie' })).to.deep.equal({ status: 1 });
      expect(bed.backend.seen.at(-1)?.metadata.get('x-millrace-edge')).to.deep.equal(['1']);
      expect((await bed.rest('POST', HealthService.check.path, { body: {} })).status).to.equal(404);
    } finally {
      await bed?.stop();
      metrics.server.close();
    }
  });
});
