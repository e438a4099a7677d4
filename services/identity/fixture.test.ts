// What the tests of identity share: a world with identity alone, people in it, and calls with their headers.
import { Client, credentials, Metadata, type MethodDefinition, type ServiceError } from '@grpc/grpc-js';
import { expect } from 'chai';
import { IdentityServiceService as Identity } from '#gen/millrace/identity/v1/identity_service.ts';
import type { Session } from '#gen/millrace/identity/v1/session.ts';
import type { ClientOf } from '#platform/client.ts';
import { Fault } from '#platform/errors.ts';
import { fromServiceError } from '#platform/status.ts';
import { startWorld, type World } from '../../tests/world.ts';
import { module } from './module.ts';

export const PASSWORD = 'violet tram 42 over the hill';
export const ADMIN = { email: 'boss@example.com', password: 'a lantern for nobody at 4' };

export const start = (env: Record<string, string> = {}): Promise<World> => startWorld({ targets: ['identity'], modules: [module], env });

export const startWithAdmin = (): Promise<World> =>
  start({ MILLRACE_IDENTITY_ADMIN_EMAIL: ADMIN.email, MILLRACE_IDENTITY_ADMIN_PASSWORD: ADMIN.password });

export const anyone = (world: World, address?: string): ClientOf<typeof Identity> => world.as('', Identity, address);

export const draft = (username: string, more: Partial<Parameters<ClientOf<typeof Identity>['register']>[0]> = {}) => ({
  email: `${username}@example.com`,
  username,
  password: PASSWORD,
  displayName: '',
  requestId: '',
  ...more,
});

export async function signUp(world: World, username: string): Promise<Session> {
  await anyone(world).register(draft(username));
  return anyone(world).createSession({ username, password: PASSWORD });
}

export const signInAdmin = async (world: World): Promise<ClientOf<typeof Identity>> => {
  const { accessToken } = await anyone(world).createSession({ username: ADMIN.email, password: ADMIN.password });
  return world.as(accessToken, Identity);
};

// The fault that the call is refused with.
export async function refusal(call: Promise<unknown>): Promise<Fault> {
  const outcome = await call.then(
    (answer) => answer,
    (error) => error,
  );
  expect(outcome, 'the call was not refused').to.be.instanceOf(Fault);
  return outcome as Fault;
}

export const reasonOf = async (call: Promise<unknown>): Promise<string> => (await refusal(call)).reason;

// A call with headers of its own, and the headers of its answer.
export function callRaw<Q, R>(
  world: World,
  method: MethodDefinition<Q, R>,
  request: Q,
  headers: Record<string, string> = {},
): Promise<{ response: R; headers: Record<string, unknown> }> {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  const client = new Client(world.grpcAddress, credentials.createInsecure());
  let answered: Record<string, unknown> = {};
  return new Promise<{ response: R; headers: Record<string, unknown> }>((resolve, reject) => {
    const done = (error: ServiceError | null, response?: R) =>
      error ? reject(fromServiceError(error)) : resolve({ response: response as R, headers: answered });
    const call = client.makeUnaryRequest(method.path, method.requestSerialize, method.responseDeserialize, request, metadata, done);
    call.on('metadata', (received: Metadata) => {
      answered = received.getMap();
    });
  }).finally(() => client.close());
}
