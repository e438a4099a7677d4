// Server streams over REST and gRPC, and what a reload does to calls that are open.
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { ExecutionServiceService, TailExecutionLogsResponse } from '#gen/millrace/executions/v1/execution_service.ts';
import { Task } from '#gen/millrace/tasks/v1/task.ts';
import { TaskServiceService } from '#gen/millrace/tasks/v1/task_service.ts';
import type { Contract, Method } from '#platform/contract.ts';
import { notFound } from '#platform/errors.ts';
import { toStatus } from '#platform/status.ts';
import type { Seen } from './testbed/backend.ts';
import { type Bed, startBed } from './testbed/bed.ts';
import { metadataOf, refused, streamed, until } from './testbed/calls.ts';

const LOGS = '/v1/executions/e1/logs';
const entry = (seq: number) =>
  TailExecutionLogsResponse.fromPartial({ entry: { cursor: `1.${seq}`, attempt: 1, seq, text: `line ${seq}` } });

// The stream of the test: it sends when it is told to.
interface Open {
  send(message: TailExecutionLogsResponse): void;
  end(): void;
  seen: Seen;
}

describe('streams at the edge', () => {
  let bed: Bed;
  let token: string;
  let streams: Open[];
  before(async () => {
    bed = await startBed();
    token = await bed.issuer.token(['executions.read', 'tasks.read']);
    bed.backend.unary(TaskServiceService.getTask, ({ id }) => Task.fromPartial({ id }));
    bed.backend.stream(ExecutionServiceService.tailExecutionLogs, ({ id }, send, seen) => {
      if (id === 'missing') throw toStatus(notFound('execution', id));
      return new Promise((resolve) => void streams.push({ send, end: resolve, seen }));
    });
  });
  beforeEach(() => {
    streams = [];
  });
  after(() => bed.stop());

  const opened = (before: number) => until('the stream at the service', () => streams[before]);
  const reader = (response: IncomingMessage) => {
    let text = '';
    response.setEncoding('utf8').on('data', (data) => {
      text += data;
    });
    return {
      response,
      has: (part: string) => until(`${JSON.stringify(part)} in the stream`, () => (text.includes(part) ? text : undefined)),
      all: () => text,
    };
  };
  async function openRest(accept: string | undefined): Promise<{ at: Open } & ReturnType<typeof reader>> {
    const before = streams.length;
    const work = bed.open('GET', `${LOGS}?follow=true`, { token, headers: accept === undefined ? {} : { accept } });
    const at = await opened(before);
    at.send(entry(0));
    return { ...reader(await work), at };
  }

  for (const accept of ['text/event-stream', 'application/json, text/event-stream;q=0.5', 'TEXT/Event-Stream'])
    it(`are events for Accept: ${accept}, each as soon as it is sent`, async () => {
      const { at, response, has } = await openRest(accept);
      expect(response.headers).to.include({ 'content-type': 'text/event-stream', vary: 'Accept', 'cache-control': 'no-store' });
      expect(response.headers).to.include({ 'x-content-type-options': 'nosniff' });
      await has('"line 0"');
      at.send(entry(1));
      const text = await has('"line 1"');
      const events = text.split('\n\n').filter(Boolean);
      expect(events.map((event) => JSON.parse(event.replace(/^data: /, '')).entry.seq)).to.deep.equal([0, 1]);
      at.end();
      await once(response, 'end');
    });

  for (const accept of [undefined, '*/*', 'application/x-ndjson', 'application/json'])
    it(`are lines of JSON for Accept: ${accept}`, async () => {
      const { at, response, has, all } = await openRest(accept);
      expect(response.headers).to.include({ 'content-type': 'application/x-ndjson', vary: 'Accept', 'cache-control': 'no-store' });
      await has('"line 0"');
      at.send(entry(1));
      await has('"line 1"');
      at.end();
      await once(response, 'end');
      const lines = all().split('\n').filter(Boolean);
      expect(lines.map((line) => JSON.parse(line).entry.cursor)).to.deep.equal(['1.0', '1.1']);
    });

  it('fail with a status when nothing was sent yet, in both forms', async () => {
    for (const accept of ['text/event-stream', '*/*']) {
      const reply = await bed.rest('GET', '/v1/executions/missing/logs', { token, headers: { accept } });
      expect([reply.status, reply.headers['content-type'], reply.json.details[0].reason], accept).to.deep.equal([
        404,
        'application/json',
        'RESOURCE_NOT_FOUND',
      ]);
      expect(reply.headers.vary, accept).to.equal('Accept');
    }
  });

  it('are refused like any call', async () => {
    for (const accept of ['text/event-stream', '*/*']) {
      const missing = await bed.rest('GET', LOGS, { headers: { accept } });
      expect([missing.status, missing.json.details[0].reason], accept).to.deep.equal([401, 'TOKEN_MISSING']);
      const other = await bed.rest('GET', LOGS, { token: await bed.issuer.token(['executions.run']), headers: { accept } });
      expect([other.status, other.json.details[0].metadata], accept).to.deep.equal([403, { permission: 'executions.read' }]);
    }
    expect(streams).to.deep.equal([]);
  });

  it('end at the service when the caller has gone', async () => {
    for (const accept of ['text/event-stream', '*/*']) {
      const { at, response } = await openRest(accept);
      expect(at.seen.cancelled).to.equal(false);
      response.destroy();
      await until('the end at the service', () => at.seen.cancelled);
      at.end();
    }
  });

  it('have no deadline of their own, and keep the one of the caller', async () => {
    const { at, response } = await openRest('*/*');
    expect(at.seen.deadline).to.equal(Number.POSITIVE_INFINITY);
    at.end();
    response.resume();
    await once(response, 'end');
    const fault = await refused(
      streamed(
        bed.client,
        ExecutionServiceService.tailExecutionLogs,
        { id: 'e', cursor: '', follow: true },
        metadataOf(token, { 'grpc-timeout': '200m' }),
      ),
    );
    expect(fault.code).to.be.oneOf([status.DEADLINE_EXCEEDED, status.CANCELLED]);
    await until('the end at the service', () => streams.at(-1)?.seen.cancelled);
    streams.at(-1)?.end();
  });

  it('are gRPC for gRPC, whatever it accepts', async () => {
    const work = streamed(
      bed.client,
      ExecutionServiceService.tailExecutionLogs,
      { id: 'e', cursor: '', follow: true },
      metadataOf(token, { accept: 'text/event-stream' }),
    );
    const at = await opened(0);
    at.send(entry(0));
    at.send(entry(1));
    at.end();
    expect((await work).map((one) => one.entry?.seq)).to.deep.equal([0, 1]);
  });

  it('leave calls alone that are none', async () => {
    const { headers, json } = await bed.rest('GET', '/v1/tasks/t1', { token, headers: { accept: 'text/event-stream' } });
    expect([headers['content-type'], headers.vary, json.id]).to.deep.equal(['application/json', undefined, 't1']);
  });

  it('stay open while a new policy takes effect', async () => {
    const sse = await openRest('text/event-stream');
    const lines = await openRest('*/*');
    expect((await bed.rest('GET', '/v1/tasks/t1', { token })).status).to.equal(200);

    await bed.reload({
      contract: changed(bed.contract, TaskServiceService.getTask.path, { scope: 'tasks.write' }),
      settings: { rateScale: 2 },
    });
    await until('the new policy', async () => (await bed.rest('GET', '/v1/tasks/t1', { token })).status === 403);

    for (const { at, has, response } of [sse, lines]) {
      at.send(entry(7));
      await has('"line 7"');
      at.end();
      await once(response, 'end');
    }
    await bed.reload({});
    await until('the old policy', async () => (await bed.rest('GET', '/v1/tasks/t1', { token })).status === 200);
  });

  it('and everything else stay as they are when a new configuration has an unknown field', async () => {
    const { rejected } = await bed.reload({
      contract: changed(bed.contract, TaskServiceService.getTask.path, { scope: 'tasks.write' }),
      change: (edge) => ({ ...edge, routes: { ...edge.routes, requireTokens: true } }),
    });
    expect(rejected).to.be.greaterThan(0);
    expect((await bed.rest('GET', '/v1/tasks/t1', { token })).status).to.equal(200);
    await bed.reload({});
  });
});

function changed(contract: Contract, path: string, change: Partial<Method>): Contract {
  const method = contract.methods.get(path);
  if (!method) throw new Error(`the contract has no ${path}`);
  return { ...contract, methods: new Map([...contract.methods, [path, { ...method, ...change }]]) };
}
