import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { type Stack, startStack } from '../../deploy/local/stack.ts';
import { until } from '../world.ts';
import { type Collector, type Span, startCollector } from './collector.ts';
import { GREETING } from './journey.ts';
import { type Api, expectStatus, publish, signUp } from './rest.ts';

const PATIENCE_MS = 30_000; // spans are sent some seconds after they ended
// What each process tells last.
const ENDS = [
  ['millrace-edge', /./],
  ['millrace-api', /TaskService\/RunTask$/],
  ['millrace-dispatcher', 'attempt'],
  ['millrace-dispatcher', 'commit dispatcher.intake'],
  ['runner', 'job'],
  ['millrace-api', 'take execution.ended'],
] as const;

describe('a trace', function () {
  this.timeout(120_000);
  const name = `somebody-${randomBytes(4).toString('hex')}`;
  const trace = randomBytes(16).toString('hex');
  const caller = randomBytes(8).toString('hex');
  let collector: Collector;
  let stack: Stack;
  let ann: Api;
  let spans: Span[];

  const is = (service: string, what: string | RegExp) => (span: Span) =>
    span.service === service && (typeof what === 'string' ? span.name === what : what.test(span.name));
  const one = (service: string, what: string | RegExp): Span => {
    const found = spans.find(is(service, what));
    if (!found) throw new Error(`no span ${what} of ${service}: ${JSON.stringify(spans.map((span) => `${span.service} ${span.name}`))}`);
    return found;
  };
  // From a span up to the caller.
  const above = (span: Span): Span[] => {
    const parent = spans.find(({ id }) => id === span.parent);
    return parent ? [parent, ...above(parent)] : [];
  };
  const isBelow = (span: Span, other: Span) => above(span).includes(other);

  before(async () => {
    collector = await startCollector();
    stack = await startStack({ settings: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_BSP_SCHEDULE_DELAY: '200' } });
    ann = await signUp(stack.urls.base);
    const automationId = await publish(ann, GREETING);
    const task = await expectStatus(201, ann.post('/v1/tasks', { title: 'greet', automationId, input: { name, count: 1 } }));
    const headers = { traceparent: `00-${trace}-${caller}-01` };
    await expectStatus(200, ann.post(`/v1/tasks/${task.body.id}:run`, {}, headers));
    await until(
      'the whole trace',
      () => {
        spans = collector.spans.filter((span) => span.trace === trace);
        const isWhole = spans.every(({ parent }) => parent === caller || spans.some(({ id }) => id === parent));
        return isWhole && ENDS.every(([service, what]) => spans.some(is(service, what)));
      },
      PATIENCE_MS,
    ).catch((error) => {
      throw new Error(`${error.message}; there are ${spans.map((span) => `${span.service} ${span.name}`).join(', ')}`);
    });
  });
  after(async () => {
    await stack?.stop();
    collector?.stop();
  });

  it('begins at the edge, below its caller, and goes on in the service that is asked', () => {
    const edge = spans.filter(({ service }) => service === 'millrace-edge');
    const first = edge.find(({ parent }) => parent === caller);
    expect(first?.kind).to.equal('SPAN_KIND_SERVER');
    const call = one('millrace-api', /TaskService\/RunTask$/);
    expect(call.kind).to.equal('SPAN_KIND_SERVER');
    expect(above(call).map(({ service }) => service)).to.deep.equal(edge.map(({ service }) => service));
  });

  it('shows a call from area to area on both sides', () => {
    const [asked, answered] = spans
      .filter(is('millrace-api', /ExecutionService\/CreateExecution$/))
      .sort((a, b) => a.kind.localeCompare(b.kind));
    expect([asked?.kind, answered?.kind]).to.deep.equal(['SPAN_KIND_CLIENT', 'SPAN_KIND_SERVER']);
    expect(answered?.parent).to.equal(asked?.id);
    expect(isBelow(asked as Span, one('millrace-api', /RunTask$/))).to.equal(true);
  });

  it('shows the statements of a call, also those that it shares with others, by knex and by mysql2', () => {
    const call = one('millrace-api', /ExecutionService\/CreateExecution$/);
    const commit = one('millrace-api', /^commit /);
    expect(isBelow(commit, call)).to.equal(true);
    const sql = spans.filter(({ attributes }) => attributes['db.system'] ?? attributes['db.system.name']);
    expect(sql.filter((span) => isBelow(span, commit))).to.have.length.above(0);
    expect(sql.filter((span) => isBelow(span, one('millrace-api', /RunTask$/)) && !isBelow(span, commit))).to.have.length.above(0);
  });

  it('goes through the queue to the dispatcher, and from there to the automation server', () => {
    const attempt = one('millrace-dispatcher', 'attempt');
    expect(above(attempt)[0]?.name).to.match(/ExecutionService\/CreateExecution$/);
    expect(attempt.attributes).to.include({ 'millrace.attempt': '1' });
    const job = one('runner', 'job');
    expect(job.parent).to.equal(attempt.id);
    expect(job.attributes).to.include({
      'millrace.outcome': 'SUCCEEDED',
      'millrace.execution': attempt.attributes['millrace.execution'] ?? '',
    });
  });

  it('goes by NATS to whom the end concerns', () => {
    const attempt = one('millrace-dispatcher', 'attempt');
    const commit = one('millrace-dispatcher', 'commit dispatcher.intake');
    expect(commit.parent).to.equal(attempt.id);
    const taken = one('millrace-api', 'take execution.ended');
    expect(taken.kind).to.equal('SPAN_KIND_CONSUMER');
    expect(isBelow(taken, attempt)).to.equal(true);
    expect(spans.some((span) => span.parent === taken.id)).to.equal(true);
  });

  it('tells nothing of what users keep', () => {
    const told = JSON.stringify(collector.spans);
    expect(told).to.include('db.').and.not.include(name).and.not.include(ann.token).and.not.include(ann.password);
    expect(told).to.not.include(ann.username).and.not.include('hello {name}');
  });

  it('is not made of statements that serve no call', () => {
    const lone = collector.spans.filter(
      ({ parent, attributes }) => parent === '' && (attributes['db.system'] ?? attributes['db.system.name']),
    );
    expect(lone).to.deep.equal([]);
    expect(collector.spans.filter((span) => /Health\/(Check|Watch)$/.test(span.name) && span.service !== 'millrace-edge')).to.deep.equal(
      [],
    );
  });
});
