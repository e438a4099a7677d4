// For tests: a real Envoy on a free port, in front of a gRPC server that answers every method of the contract.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, credentials, type MethodDefinition } from '@grpc/grpc-js';
import { type Contract, loadContract } from '#platform/contract.ts';
import { ENVOY_FLAGS } from '../bootstrap.ts';
import { write } from '../files.ts';
import { type Edge, generate } from '../generate.ts';
import { type EdgeSettings, readEdgeSettings } from '../settings.ts';
import { type Backend, startBackend } from './backend.ts';
import { type Ask, ask, callUnary, metadataOf, open, type Reply, until } from './calls.ts';
import { ISSUER, type Issuer, startIssuer } from './issuer.ts';

interface Updates {
  accepted: number;
  rejected: number;
}
export interface Bed {
  backend: Backend;
  issuer: Issuer;
  contract: Contract;
  settings: EdgeSettings;
  folder: string;
  port: number;
  logged(): string;
  rest(verb: string, path: string, ask?: Ask): Promise<Reply>;
  open(verb: string, path: string, ask?: Ask): Promise<IncomingMessage>; // a stream: the body is read by the caller
  grpc<Q, R>(definition: MethodDefinition<Q, R>, request: Q, token?: string, headers?: Record<string, string>): Promise<R>; // throws ServiceError
  client: Client;
  admin(verb: string, path: string): Promise<Reply>;
  reload(changed: { settings?: Partial<EdgeSettings>; contract?: Contract; change?: (edge: Edge) => Edge }): Promise<Updates>;
  stop(): Promise<void>;
}

export const ENVOY = '.venv/bin/envoy';

export async function startBed(
  env: Record<string, string> = {},
  contract = loadContract('build/image.binpb'),
  prepare = (_: Issuer): void => undefined,
): Promise<Bed> {
  const folder = mkdtempSync(join(tmpdir(), 'edge-'));
  const backend = await startBackend(contract);
  const issuer = await startIssuer();
  prepare(issuer);
  const areas = Object.fromEntries(
    ['HEALTH', 'IDENTITY', 'TASKS', 'AUTOMATIONS', 'EXECUTIONS', 'SCHEDULES', 'WEBHOOKS', 'RUNNER'].map((area) => [
      `MILLRACE_${area}_URL`,
      backend.address,
    ]),
  );
  const settings = readEdgeSettings({
    MILLRACE_EDGE_ADDRESS: '127.0.0.1:0',
    MILLRACE_PUBLIC_URL: ISSUER,
    MILLRACE_IDENTITY_JWKS_URL: `${issuer.url}/jwks`,
    ...areas,
    ...env,
  });
  const stopAround = async () => {
    issuer.stop();
    await backend.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    write(generate(settings, contract, folder), folder);
  } catch (error) {
    await stopAround();
    throw error;
  }
  const lines: string[] = [];
  const envoy = startEnvoy(join(folder, 'envoy.json'), lines);
  const socketPath = join(folder, 'admin.sock');
  const admin = (verb: string, path: string) => ask({ socketPath }, verb, path, {});
  const port = await until('Envoy', async () => {
    if (envoy.exitCode !== null) throw new Error(`Envoy ended:\n${lines.join('')}`);
    const ready = await admin('GET', '/ready').catch(() => undefined);
    if (ready?.status !== 200) return undefined;
    const { json } = await admin('GET', '/listeners?format=json');
    return json?.listener_statuses?.[0]?.local_address?.socket_address?.port_value as number | undefined;
  }).catch(async (error) => {
    envoy.kill('SIGKILL');
    await stopAround();
    throw new Error(`${error.message}\n${lines.join('')}`);
  });
  const at = { host: '127.0.0.1', port };
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());

  return {
    backend,
    issuer,
    contract,
    settings,
    folder,
    port,
    logged: () => lines.join(''),
    rest: (verb, path, given = {}) => ask(at, verb, path, given),
    open: (verb, path, given = {}) => open(at, verb, path, given),
    grpc: (definition, request, token, headers = {}) => callUnary(client, definition, request, metadataOf(token, headers)),
    client,
    admin,
    async reload({ settings: others = {}, contract: other = contract, change = (edge) => edge }) {
      const count = async (): Promise<Updates> => {
        const { body } = await admin('GET', '/stats?filter=update_(success|rejected)');
        const sum = (name: string) =>
          [...body.matchAll(new RegExp(`(?:lds|cds|rds).*${name}: (\\d+)`, 'g'))].reduce((all, [, n]) => all + Number(n), 0);
        return { accepted: sum('update_success'), rejected: sum('update_rejected') };
      };
      const before = await count();
      write(change(generate({ ...settings, ...others }, other, folder)), folder);
      return until('the reload', async () => {
        const now = await count();
        const done = { accepted: now.accepted - before.accepted, rejected: now.rejected - before.rejected };
        return done.accepted + done.rejected > 0 ? done : undefined;
      });
    },
    async stop() {
      client.close();
      const gone = new Promise((resolve) => envoy.once('exit', resolve));
      envoy.kill('SIGTERM');
      await gone;
      await stopAround();
    },
  };
}

export function startEnvoy(config: string, lines: string[]): ChildProcess {
  const child = spawn(ENVOY, ['-c', config, ...ENVOY_FLAGS, '--concurrency', '1'], { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.on('data', (data) => lines.push(String(data)));
  child.stderr.on('data', (data) => lines.push(String(data)));
  return child;
}
