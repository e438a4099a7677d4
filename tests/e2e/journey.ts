// The main job, as a journey that any stack must manage: publish, run, watch, result. Used on one process and on many.
import { createHash } from 'node:crypto';
import { expect } from 'chai';
import { type Api, ended, expectStatus, frames, type Json, publish, run } from './rest.ts';

export const GREETING = `
import logging
import time
import millrace

def main(name: str, count: int = 3) -> dict:
    for i in range(count):
        print(f"hello {name} {i}")
        millrace.progress((i + 1) / count, f"{i + 1} of {count}")
        time.sleep(0.05)
    logging.warning("almost done")
    return {"greeted": name, "times": count}
`;

export const hashOf = (entries: Json[]): string => {
  const hash = createHash('sha256');
  for (const { text, partial } of entries) hash.update(partial ? text : `${text}\n`);
  return hash.digest('hex');
};

// A whole log, checked: gapless, closed by count and hash.
export async function wholeLog(
  api: Api,
  id: string,
  options: { sse?: boolean; cursor?: string } = {},
): Promise<{ entries: Json[]; ends: Json[] }> {
  const entries: Json[] = [];
  const ends: Json[] = [];
  for await (const frame of frames(api, `/v1/executions/${id}/logs?follow=true${options.cursor ? `&cursor=${options.cursor}` : ''}`, {
    sse: options.sse ?? false,
  })) {
    if (frame.entry) entries.push(frame.entry);
    if (frame.attemptEnd) ends.push(frame.attemptEnd);
    if (frame.end) {
      expect(frame.end.code).to.equal(0);
      return { entries, ends };
    }
  }
  throw new Error('the log ended without an end frame');
}

export function expectGapless({ entries, ends }: { entries: Json[]; ends: Json[] }): void {
  for (const end of ends) {
    const own = entries.filter((entry) => entry.attempt === end.attempt);
    expect(own.map((entry) => entry.seq)).to.deep.equal(own.map((_, index) => index));
    expect([own.length, hashOf(own)]).to.deep.equal([end.count, end.sha256]);
  }
}

export async function journey(api: Api): Promise<void> {
  const automation = await publish(api, GREETING);
  const id = await run(api, automation, { name: 'Ann' });
  const log = await wholeLog(api, id, { sse: true });
  expect(log.entries.filter((entry) => entry.stream === 'STDOUT').map((entry) => entry.text)).to.deep.equal([
    'hello Ann 0',
    'hello Ann 1',
    'hello Ann 2',
  ]);
  expect(log.entries.find((entry) => entry.stream === 'LOG')).to.include({ level: 'WARNING', text: 'almost done' });
  expect(log.ends).to.have.length(1);
  expectGapless(log);
  const done = await ended(api, id);
  expect(done).to.deep.include({ state: 'SUCCEEDED', output: { greeted: 'Ann', times: 3 }, attemptCount: 1 });
  const task = await expectStatus(
    201,
    api.post('/v1/tasks', { title: 'greet', automationId: automation, input: { name: 'Bob', count: 1 } }),
  );
  await expectStatus(200, api.post(`/v1/tasks/${task.body.id}:run`));
  for await (const frame of frames(api, '/v1/tasks:watch')) {
    const now = (await expectStatus(200, api.get(`/v1/tasks/${task.body.id}`))).body;
    if (now.state === 'COMPLETED') {
      expect(now.run).to.deep.include({ status: 'SUCCEEDED', output: { greeted: 'Bob', times: 1 } });
      expect(now.run.logs).to.include('hello Bob 0');
      return;
    }
    if (frame.end) throw new Error('the watch ended before the task was completed');
  }
}
