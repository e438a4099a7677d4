// The admin port: /livez, /readyz, /metrics, and what modules add. Never reachable through the edge unless a setting says so.
import { createServer } from 'node:http';
import { performance } from 'node:perf_hooks';
import type { Health } from './health.ts';
import type { Logger } from './log.ts';
import { metricsText } from './metrics.ts';

export interface Answer {
  status?: number;
  type?: string;
  body: string;
}
export interface Admin {
  add(path: string, answer: (url: URL) => Promise<Answer>): void;
  address: string;
  stop(): Promise<void>;
}

export async function openAdmin(address: string, health: () => Health, log: Logger): Promise<Admin> {
  const routes = new Map<string, (url: URL) => Promise<Answer>>([
    ['/livez', async () => ({ body: 'ok\n', type: 'text/plain' })],
    ['/readyz', async () => readiness(health())],
    ['/metrics', metricsText],
  ]);
  const server = createServer(async (request, response) => {
    const url = new URL(request.url ?? '/', 'http://admin');
    const route = request.method === 'GET' ? routes.get(url.pathname) : undefined;
    const {
      status = 200,
      type = 'application/json',
      body,
    } = route
      ? await route(url).catch((error): Answer => {
          log.error({ error, path: url.pathname }, 'the admin port could not answer');
          return { status: 500, body: '{"error":"see the log"}' };
        })
      : { status: 404, body: JSON.stringify({ error: 'not found', paths: [...routes.keys()] }) };
    response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(body);
  });
  const at = address.lastIndexOf(':');
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(new Error(`the admin port cannot listen on ${address}: ${error.message}`)));
    server.listen(Number(address.slice(at + 1)), address.slice(0, at), resolve);
  });
  const bound = server.address();
  return {
    add: (path, answer) => void routes.set(path, answer),
    address: `${address.slice(0, at)}:${typeof bound === 'object' ? bound?.port : ''}`,
    stop: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

async function readiness(health: Health): Promise<Answer> {
  const report = health.report();
  return { status: report.ready ? 200 : 503, body: JSON.stringify({ ...report, uptimeSeconds: Math.round(performance.now() / 1000) }) };
}
