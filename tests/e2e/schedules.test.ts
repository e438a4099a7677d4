import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { until } from '../world.ts';
import { GREETING } from './journey.ts';
import { type Api, ended, expectStatus, type Json, publish, signUp } from './rest.ts';
import { theStack } from './stack.ts';

const TELL = 'def main(when: str) -> str:\n    return when\n';
const HOUR = 3_600_000;

describe('a schedule', function () {
  this.timeout(60_000);
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(120_000);
    stack = await theStack();
    ann = await signUp(stack.urls.base);
  });

  const create = async (body: object): Promise<string> =>
    (await expectStatus(201, ann.post('/v1/schedules', { name: 'often', ...body }))).body.id;
  const ticksOf = async (id: string, query = ''): Promise<Json[]> =>
    (await expectStatus(200, ann.get(`/v1/schedules/${id}/ticks${query}`))).body.ticks;

  it('runs an automation each second, and tells it the time', async () => {
    const automationId = await publish(ann, TELL);
    const id = await create({
      automationId,
      timeParameter: 'when',
      overlap: 'ALLOW_ALL',
      spec: { crons: ['* * * * * *'], timeZone: 'Europe/Berlin' },
    });
    const ticks = await until(
      'three ticks',
      async () => {
        const found = await ticksOf(id, '?states=SUCCEEDED');
        return found.length >= 3 ? found : undefined;
      },
      30_000,
    ); // prettier-ignore
    const { body: paused } = await expectStatus(200, ann.post(`/v1/schedules/${id}:pause`, { reason: 'seen enough' }));
    expect(paused).to.include({ state: 'PAUSED', pauseReason: 'seen enough' });
    expect(paused.counts.succeeded).to.be.at.least(3);
    for (const tick of ticks) {
      const execution = (await expectStatus(200, ann.get(`/v1/executions/${tick.executionId}`))).body;
      expect(execution).to.include({ state: 'SUCCEEDED', automationId, creatorId: ann.user.id });
      expect(execution.labels.schedule).to.equal(id);
      expect(new Date(execution.output).getTime()).to.equal(new Date(tick.tickTime).getTime());
    }
    const times = (await ticksOf(id)).map(({ tickTime }) => new Date(tickTime).getTime() / 1000);
    expect(times, 'each second once').to.deep.equal(times.map((_, index) => (times[0] ?? 0) - index));
  });

  it('is run now, fills the past in order, is changed and deleted', async () => {
    const id = await create({ automationId: await publish(ann, TELL), timeParameter: 'when', spec: { crons: ['0 * * * *'] } });
    const asked = (await expectStatus(200, ann.post(`/v1/schedules/${id}:run`))).body;
    const { executionId } = await until('its execution', async () => {
      const tick = (await expectStatus(200, ann.get(`/v1/schedules/${id}/ticks/${asked.id}`))).body;
      return tick.executionId ? tick : undefined;
    });
    expect((await ended(ann, executionId)).output).to.equal(new Date(asked.tickTime).toISOString());
    const hour = Math.floor(Date.now() / HOUR) * HOUR;
    const range = { startTime: new Date(hour - 2 * HOUR), endTime: new Date(hour) };
    const filled = (await expectStatus(200, ann.post(`/v1/schedules/${id}:backfill`, range))).body;
    expect(filled).to.include({ tickCount: 3, skippedCount: 0 });
    const done = await until(
      'the backfill',
      async () => {
        const found = await ticksOf(id, `?backfillId=${filled.id}&states=SUCCEEDED`);
        return found.length === 3 ? found.reverse() : undefined;
      },
      30_000,
    ); // prettier-ignore
    const starts: Json[] = [];
    for (const tick of done) starts.push((await ann.get(`/v1/executions/${tick.executionId}`)).body);
    expect(starts.map(({ output }) => new Date(output).getTime())).to.deep.equal([2, 1, 0].map((hours) => hour - hours * HOUR));
    for (const [index, one] of starts.slice(1).entries())
      expect(new Date(one.createTime) >= new Date(starts[index].endTime)).to.equal(true);
    const changed = await expectStatus(
      200,
      ann.call('PATCH', `/v1/schedules/${id}`, { pauseOnFailure: true, spec: { intervals: [{ every: '90s' }] } }),
    );
    expect(changed.body).to.include({ pauseOnFailure: true, version: 2 });
    expect((await ann.call('DELETE', `/v1/schedules/${id}`)).status).to.equal(204);
    expect((await ann.get(`/v1/schedules/${id}`)).status).to.equal(404);
  });

  it('pauses when its automation fails, if it is told to', async () => {
    const automationId = await publish(ann, 'def main():\n    raise ValueError("no")\n', { retryPolicy: { maxAttempts: 1 } });
    const id = await create({ automationId, pauseOnFailure: true, spec: { crons: ['* * * * * *'] } });
    const paused = await until(
      'the pause',
      async () => {
        const { body } = await expectStatus(200, ann.get(`/v1/schedules/${id}`));
        return body.state === 'PAUSED' ? body : undefined;
      },
      30_000,
    ); // prettier-ignore
    expect(paused.pauseReason).to.match(/failed: ValueError: no/);
    expect(paused.counts.failed).to.equal(1);
  });

  it('that cannot be is refused with what to write instead', async () => {
    const said = await ann.post('/v1/schedules', {
      name: 'x',
      automationId: 'aut_00000000000000000000000000',
      spec: { crons: ['0 9 * *'] },
    });
    expect(said.status).to.equal(400);
    const violation = said.body.details.find((one: Json) => one['@type'].endsWith('BadRequest')).fieldViolations[0];
    expect(violation.field).to.equal('schedule.spec.crons.0');
    expect(violation.description).to.match(/five fields .* or six with seconds first, such as "0 30 9 \* \* MON-FRI"/);
    const lost = await ann.post('/v1/schedules:previewTimes', { spec: { crons: ['@daily'], timeZone: 'Europe/Atlantis' } });
    expect([lost.status, lost.body.message]).to.deep.equal([
      400,
      'spec.timeZone is no time zone: give its IANA name, such as Europe/Berlin or UTC',
    ]);
  });

  it('is what docs/SCHEDULES.md shows', async () => {
    const blocks = [...readFileSync('docs/SCHEDULES.md', 'utf8').matchAll(/^```sh\n(.*?)^```/gms)].map(([, text]) => text);
    const env = { ...process.env, BASE: stack.urls.base, HOST: stack.urls.host, TOKEN: ann.token, ID: await publish(ann, GREETING) };
    const { stdout } = await promisify(execFile)('bash', ['-c', `set -eo pipefail\n${blocks.join('\n')}`], { env });
    for (const expected of [
      '"ACTIVE"',
      'every working morning',
      '2026-03-29T01:00:00Z',
      'spec.crons.0',
      '"PAUSED"',
      'holidays',
      '"BACKFILL"',
      '"tickCount": ',
      ':05:00Z',
    ])
      expect(stdout).to.include(expected);
    expect(stdout)
      .not.to.match(/\bnull\b/)
      .and.not.to.include('"code": ');
  });
});
