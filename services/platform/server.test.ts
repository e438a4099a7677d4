import { type Client, credentials, Metadata, Client as RawClient, type ServiceError, status } from '@grpc/grpc-js';
import { expect } from 'chai';
import fc from 'fast-check';
import { SignJWT } from 'jose';
import { HealthService } from '#gen/grpc/health/v1/health.ts';
import { ServerReflectionService } from '#gen/grpc/reflection/v1/reflection.ts';
import { ServerServiceService } from '#gen/millrace/executions/v1/server_service.ts';
import { Task, Task_State } from '#gen/millrace/tasks/v1/task.ts';
import { TaskServiceService, type WatchTasksResponse } from '#gen/millrace/tasks/v1/task_service.ts';
import { often } from '../../tests/long.ts';
import { type Person, startWorld, until, type World } from '../../tests/world.ts';
import { Fault, notFound } from './errors.ts';
import type { Call, Handlers } from './handlers.ts';
import { newId } from './id.ts';
import type { Module } from './module.ts';

// A module that answers with what the platform told it: the platform is what is tested.
let lastCall: Call | undefined;
let released: () => void = () => undefined;
const echo = async (_request: unknown, call: Call) => {
  lastCall = call;
  return Task.fromPartial({ id: newId('task'), title: call.caller.user, description: call.caller.service ?? '' });
};
const handlers = {
  createTask: echo,
  getTask: async ({ id }: { id: string }) => {
    if (id === 'missing') throw notFound('task', id);
    if (id === 'broken') throw new Error('secret detail of the inside');
    if (id === 'slow') await new Promise<void>((resolve) => (released = resolve));
    return Task.fromPartial({ id, state: Task_State.PENDING });
  },
  updateTask: echo,
  deleteTask: async () => ({}),
  async *watchTasks(_request: unknown, call: Call): AsyncGenerator<WatchTasksResponse> {
    let count = 0;
    yield { task: Task.fromPartial({ version: 1 }) };
    while (!call.signal.aborted && count < 100) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      count += 1;
    }
    yield { end: { code: call.signal.reason instanceof Fault ? call.signal.reason.code : 0, message: 'over' } };
  },
} as unknown as Handlers<typeof TaskServiceService>;
const withFallback = new Proxy(handlers, { get: (all, name) => all[name as keyof typeof all] ?? echo });
const registered = { registerServer: async () => ({ againAfterMs: 1 }) };
const fixture: Module = {
  name: 'tasks',
  async start(p) {
    p.serve(TaskServiceService, withFallback);
    p.serve(ServerServiceService, registered);
    return async () => undefined;
  },
};

const caught = async (work: Promise<unknown>): Promise<Fault> =>
  work.then(
    () => {
      throw new Error('it was not refused');
    },
    (error) => error as Fault,
  );

describe('a server', () => {
  let world: World;
  let ann: Person;
  before(async () => {
    world = await startWorld({ targets: ['tasks'], modules: [fixture] });
    ann = world.person();
  });
  after(() => world?.stop());

  const task = Task.fromPartial({ title: 'x' });
  const tasks = (person: Person | string) => world.as(person, TaskServiceService);

  it('tells a handler who calls', async () => {
    const answer = await tasks(ann).createTask({ task, requestId: '' });
    expect(answer.title).to.equal(ann.user);
    expect(lastCall?.caller.workspace).to.equal(ann.workspace);
  });

  it('refuses a call without a token', async () => {
    const client = new RawClient(world.grpcAddress, credentials.createInsecure());
    const error = await rawUnary(client, TaskServiceService.getTask, { id: 'x' }).catch((e) => e as ServiceError);
    expect(error).to.include({ code: status.UNAUTHENTICATED });
    client.close();
  });

  it('refuses every token that is not its own', async () => {
    const now = Math.floor(Date.now() / 1000);
    const none = `${Buffer.from('{"alg":"none","typ":"at+jwt"}').toString('base64url')}.${Buffer.from(JSON.stringify({ sub: ann.user, exp: now + 60 })).toString('base64url')}.`;
    const hs256 = await new SignJWT({ sub: ann.user, wsp: ann.workspace, sid: 's', scope: 'tasks.read' })
      .setProtectedHeader({ alg: 'HS256', typ: 'at+jwt', kid: 'test' })
      .setIssuer('http://millrace.test')
      .setAudience('millrace')
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(new Uint8Array(32)); // prettier-ignore
    const wrong = [
      none,
      hs256,
      'x.y.z',
      await world.token(ann, { iss: 'http://other' }),
      await world.token(ann, { aud: 'other' }),
      await world.token(ann, { exp: now - 120 }),
      await world.token(ann, { sub: undefined }),
    ]; // prettier-ignore
    for (const token of wrong)
      expect(await caught(tasks(token).getTask({ id: 'x' })), token).to.include({ code: status.UNAUTHENTICATED, reason: 'TOKEN_INVALID' });
  });

  it('asks for the permission of the method and names it', async () => {
    const reader = world.person({ scopes: ['tasks.read'] });
    expect(await tasks(reader).getTask({ id: 'x' })).to.include({ id: 'x' });
    const fault = await caught(tasks(reader).createTask({ task, requestId: '' }));
    expect(fault).to.include({ code: status.PERMISSION_DENIED, reason: 'PERMISSION_MISSING' });
    expect(fault.metadata.permission).to.equal('tasks.write');
  });

  it('accepts only the services that a SERVICE method names, and no user', async () => {
    const request = {
      serverId: 'srv_1',
      endpoint: 'x:1',
      labels: {},
      slots: 1,
      sandboxTier: 2,
      minimumTier: 1,
      protocol: 1,
      draining: false,
    };
    expect(await world.asService('runner', ServerServiceService).registerServer(request)).to.deep.equal({ againAfterMs: 1 });
    for (const client of [world.asService('stranger', ServerServiceService), world.as(ann, ServerServiceService)]) {
      expect(await caught(client.registerServer(request))).to.include({ code: status.PERMISSION_DENIED, reason: 'SERVICE_NOT_ACCEPTED' });
    }
  });

  it('accepts no service on a method that names none, even for a user', async () => {
    const fault = await caught(world.asService('automations', TaskServiceService, ann).getTask({ id: 'x' }));
    expect(fault.reason).to.equal('SERVICE_NOT_ACCEPTED');
  });

  it('refuses what breaks the contract, naming the field and the known ones', async () => {
    const fault = await caught(tasks(ann).createTask({ task: Task.fromPartial({ title: 'x'.repeat(201) }), requestId: '' }));
    expect(fault).to.include({ code: status.INVALID_ARGUMENT, reason: 'FIELD_INVALID' });
    expect(fault.violations.map((one) => one.field)).to.deep.equal(['task.title']);
    expect(fault.metadata.fields).to.include('dueTime');
  });

  it('never answers INTERNAL or dies for bytes that are no message', async () => {
    const client = new RawClient(world.grpcAddress, credentials.createInsecure());
    const token = await world.token(ann);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 64 }), async (bytes) => {
        const definition = { ...TaskServiceService.createTask, requestSerialize: () => Buffer.from(bytes) };
        const error = await rawUnary(client, definition, {}, token).then(
          () => undefined,
          (e) => e as ServiceError,
        );
        expect(error?.code).to.be.oneOf([undefined, status.INVALID_ARGUMENT]);
      }),
      often('requests that are no message'),
    );
    client.close();
  });

  it('passes faults with all their details, and hides what was not foreseen', async () => {
    expect(await caught(tasks(ann).getTask({ id: 'missing' }))).to.include({
      code: status.NOT_FOUND,
      reason: 'RESOURCE_NOT_FOUND',
      domain: 'millrace',
    });
    const fault = await caught(tasks(ann).getTask({ id: 'broken' }));
    expect(fault).to.include({ code: status.INTERNAL, reason: 'UNEXPECTED' });
    expect(fault.message).not.to.include('secret');
    expect(world.logged()).to.include('secret detail of the inside');
  });

  it('takes the idempotency key from the header or the field, and hashes requests without it', async () => {
    await tasks(ann).createTask({ task, requestId: '' }, { requestId: 'k1' });
    const first = lastCall?.requestHash;
    expect(lastCall?.requestId).to.equal('k1');
    await tasks(ann).createTask({ task, requestId: 'k2' });
    expect(lastCall?.requestId).to.equal('k2');
    expect(lastCall?.requestHash).to.deep.equal(first);
    await tasks(ann).createTask({ task: Task.fromPartial({ title: 'y' }), requestId: 'k2' });
    expect(lastCall?.requestHash).not.to.deep.equal(first);
  });

  it('refuses the tokens of a revoked user once identity tells of it, and no later ones', async () => {
    const bob = world.person();
    const token = await world.token(bob);
    await tasks(token).getTask({ id: 'x' });
    world.revoke(bob.user);
    const fault = await until('the revocation to be known', () =>
      tasks(token)
        .getTask({ id: 'x' })
        .then(
          () => undefined,
          (e) => e as Fault,
        ),
    ); // prettier-ignore
    expect(fault.reason).to.equal('TOKEN_REVOKED');
    const later = await world.token(bob, { iat: Math.floor(Date.now() / 1000) + 30 });
    expect(await tasks(later).getTask({ id: 'x' })).to.include({ id: 'x' });
  });

  it('describes itself by reflection, well-known types included, and reports its health', async () => {
    const client = new RawClient(world.grpcAddress, credentials.createInsecure());
    const call = client.makeBidiStreamRequest(
      ServerReflectionService.serverReflectionInfo.path,
      ServerReflectionService.serverReflectionInfo.requestSerialize,
      ServerReflectionService.serverReflectionInfo.responseDeserialize,
    ); // prettier-ignore
    const answers: unknown[] = [];
    call.on('data', (answer) => answers.push(answer));
    call.write({ host: '', listServices: '' } as never);
    call.write({ host: '', fileContainingSymbol: 'millrace.tasks.v1.Task' } as never);
    call.write({ host: '', fileContainingSymbol: 'no.such.Thing' } as never);
    call.end();
    await until('three answers', () => answers.length === 3);
    const [list, file, missing] = answers as [
      { listServicesResponse: { service: { name: string }[] } },
      { fileDescriptorResponse: { fileDescriptorProto: Buffer[] } },
      { errorResponse: { errorCode: number } },
    ];
    expect(list.listServicesResponse.service.map((one) => one.name)).to.include('millrace.tasks.v1.TaskService');
    expect(Buffer.concat(file.fileDescriptorResponse.fileDescriptorProto).includes('google/protobuf/timestamp.proto')).to.equal(true);
    expect(missing.errorResponse.errorCode).to.equal(status.NOT_FOUND);
    const health = (await rawUnary(client, HealthService.check, { service: 'millrace.tasks.v1.TaskService' })) as { status: number };
    expect(health.status).to.equal(1);
    client.close();
  });

  it('finishes what runs and ends streams with a terminal frame when it stops', async () => {
    const slow = tasks(ann).getTask({ id: 'slow' });
    const frames: WatchTasksResponse[] = [];
    const watching = (async () => {
      for await (const frame of tasks(ann).watchTasks({})) frames.push(frame);
    })();
    await until('the first frame', () => frames.length === 1);
    const restarted = world.restart();
    await watching;
    released();
    expect(await slow).to.include({ id: 'slow' });
    await restarted;
    expect(frames.at(-1)?.end?.code).to.equal(status.UNAVAILABLE);
  });
});

// biome-ignore lint/suspicious/noExplicitAny: any method
const rawUnary = (client: Client, definition: any, request: unknown, token?: string): Promise<unknown> => {
  const metadata = new Metadata();
  if (token) metadata.set('authorization', `Bearer ${token}`);
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      definition.path,
      definition.requestSerialize,
      definition.responseDeserialize,
      request,
      metadata,
      (error: ServiceError | null, answer: unknown) => (error ? reject(error) : resolve(answer)),
    );
  });
};

describe('a server that starts', () => {
  it('asks for another call until a module serves, then knows what is not here', async () => {
    const { promise: address, resolve: tell } = Promise.withResolvers<string>();
    const { promise: mayServe, resolve: serve } = Promise.withResolvers<void>();
    const slow: Module = {
      name: 'tasks',
      async start(p) {
        tell(p.address('tasks'));
        await mayServe;
        p.serve(TaskServiceService, withFallback);
        return async () => undefined;
      },
    };
    const starting = startWorld({ targets: ['tasks'], modules: [slow] });
    const channel = new RawClient(await address, credentials.createInsecure());
    const call = (method: string): Promise<number> =>
      new Promise((resolve) => {
        const bytes = (value: Buffer) => value;
        channel.makeUnaryRequest(`/millrace.${method}`, bytes, bytes, Buffer.alloc(0), (error) => resolve(error?.code ?? 0));
      });
    const watch = (): Promise<number> =>
      new Promise((resolve) => {
        const bytes = (value: Buffer) => value;
        const frames = channel.makeServerStreamRequest('/millrace.tasks.v1.TaskService/WatchTasks', bytes, bytes, Buffer.alloc(0));
        frames.on('error', (error: ServiceError) => resolve(error.code));
        frames.resume();
      });
    try {
      expect(await call('tasks.v1.TaskService/GetTask')).to.equal(status.UNAVAILABLE);
      expect(await watch()).to.equal(status.UNAVAILABLE);
    } finally {
      serve();
    }
    const world = await starting;
    expect(await call('tasks.v1.TaskService/GetTask')).to.equal(status.UNAUTHENTICATED);
    expect(await watch()).to.equal(status.UNAUTHENTICATED);
    expect(await call('executions.v1.ExecutionService/GetExecution')).to.equal(status.UNIMPLEMENTED);
    channel.close();
    await world.stop();
  });
});
