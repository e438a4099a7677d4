// What the machine's parts can do by themselves, beside which the product's figures are read.
import { execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import { Client, credentials } from '@grpc/grpc-js';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { createPool } from 'mysql2/promise';
import { HealthService } from '#gen/grpc/health/v1/health.ts';
import { brokerAddress } from '#platform/broker-address.ts';
import { pause } from '#platform/pause.ts';
import { type Figure, median, rate } from './figures.ts';

const FORKS = `
import os, time
def spin(n):
    start = time.perf_counter()
    for _ in range(n):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return n / (time.perf_counter() - start)
print(spin(500))
`;

const PACE_MS = 50;

export async function limits(databaseUrl: string, natsUrl: string, python: string, services: string): Promise<Figure[]> {
  return [
    ...(await answers(services)),
    ...(await commits(databaseUrl)),
    ...(await publishes(natsUrl)),
    { name: 'forks of a small Python process', unit: '/s', value: Number(execFileSync(python, ['-I', '-S', '-c', FORKS]).toString()) },
  ];
}

async function commits(url: string): Promise<Figure[]> {
  const pool = createPool({ uri: url, connectionLimit: 16 });
  await pool.query('CREATE DATABASE IF NOT EXISTS millrace_bench');
  await pool.query('CREATE TABLE IF NOT EXISTS millrace_bench.commits (id BIGINT AUTO_INCREMENT PRIMARY KEY, body VARBINARY(200))');
  const insert = () => pool.query("INSERT INTO millrace_bench.commits (body) VALUES (REPEAT('x', 200))");
  const alone = await rate(1000, 1, insert);
  const many = await rate(4000, 16, insert);
  await pool.query('DROP DATABASE millrace_bench');
  await pool.end();
  return [
    { name: 'commits, one connection', unit: '/s', value: alone },
    { name: 'commits, 16 connections', unit: '/s', value: many },
  ];
}

async function publishes(url: string): Promise<Figure[]> {
  const connection = await connect(brokerAddress(url));
  const manager = await jetstreamManager(connection);
  await manager.streams.add({ name: 'millrace_bench', subjects: ['millrace_bench.>'] });
  const body = Buffer.alloc(512);
  const value = await rate(10_000, 64, () => jetstream(connection).publish('millrace_bench.x', body));
  await manager.streams.delete('millrace_bench');
  await connection.close();
  return [{ name: 'publishes to JetStream, 64 in flight', unit: '/s', value }];
}

// The least that a call costs here: its server only answers. Twenty a second find caches cold, which the product's latencies at that pace meet at each hop.
async function answers(address: string): Promise<Figure[]> {
  const { path, requestSerialize, responseDeserialize } = HealthService.check;
  const client = new Client(address, credentials.createInsecure());
  const call = promisify((done: (error: Error | null) => void) => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { service: '' }, done);
  });
  const timed = async (count: number, pauseMs: number): Promise<number> => {
    const took: number[] = [];
    for (let n = 0; n < count; n += 1) {
      const begin = performance.now();
      await call();
      took.push(performance.now() - begin);
      if (pauseMs > 0) await pause(pauseMs);
    }
    return median(took);
  };
  await timed(500, 0);
  const figures = [
    { name: 'a gRPC call that only answers, one after the other, p50', unit: 'ms', value: await timed(1000, 0) },
    { name: 'a gRPC call that only answers, 20 a second, p50', unit: 'ms', value: await timed(100, PACE_MS) },
  ];
  client.close();
  return figures;
}
