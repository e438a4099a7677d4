import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { schemaOf } from '#platform/db.ts';
import { fromBytes, newBytes, newId } from '#platform/id.ts';
import { accept, type Schema, startSchema } from '../../services/executions/engine/fixture.test.ts';
import { hashOf } from '../e2e/journey.ts';
import { check, type Happening, I7, judge, readHistory, type Tables } from './checker.ts';

const CLAIM = 'a'.repeat(32);
const OTHER = 'b'.repeat(32);
const texts = [`claim ${CLAIM} one`, 'two'];
const sha256 = hashOf(texts.map((text) => ({ text })));
const entries = texts.map((text, seq) => ({ attempt: 1, seq, text }));

// One execution that was accepted, ran and succeeded as it should, with everything that a client can see of it.
function story(): { history: Happening[]; tables: Tables; id: string } {
  const id = newId('execution');
  return {
    id,
    history: [
      { what: 'accepted', key: 'k', body: 'b', id },
      { what: 'accepted', key: 'k', body: 'b', id },
      { what: 'refused', key: 'k', body: 'c', reason: 'IDEMPOTENCY_KEY_REUSED' },
      { what: 'seen', id, state: 'RUNNING', version: 1 },
      { what: 'seen', id, state: 'SUCCEEDED', version: 2, output: '1' },
      { what: 'log', id, entries, ends: [{ attempt: 1, count: 2, sha256 }], isWhole: true },
      { what: 'log', id, entries: entries.slice(1), ends: [], isWhole: false },
      { what: 'told', event: 'e1', type: 'created', id },
      { what: 'told', event: 'e2', type: 'ended', id },
      { what: 'told', event: 'e2', type: 'ended', id },
    ],
    tables: {
      executions: [{ id, state: 'SUCCEEDED', version: 2, attemptCount: 1, output: '1' }],
      attempts: [{ id, number: 1, state: 'SUCCEEDED', claim: CLAIM, logCount: 2, sha256 }],
      lines: texts.map((text, seq) => ({ id, attempt: 1, seq, text, partial: false })),
      places: [],
      waitsForEver: [],
    },
  };
}
type Story = ReturnType<typeof story>;
const row = ({ tables }: Story) => tables.executions[0] as Tables['executions'][number];
const attempt = ({ tables }: Story) => tables.attempts[0] as Tables['attempts'][number];
const line = ({ tables }: Story, index: number) => tables.lines[index] as Tables['lines'][number];
const cancelled = (one: Story) => {
  one.history = one.history.flatMap((event) => (event.what === 'seen' ? [] : event));
  one.history.push({ what: 'seen', id: one.id, state: 'CANCELLED', version: 2 });
  Object.assign(row(one), { state: 'CANCELLED', output: null });
  attempt(one).state = 'CANCELLED';
};

// Each breaks one promise in one way.
const breaches: [promise: string, what: string, spoil: (one: Story) => void][] = [
  [
    'I1',
    'an accepted execution that is not there',
    ({ tables }) => void Object.assign(tables, { executions: [], attempts: [], lines: [] }),
  ],
  ['I2', 'another final state in the database', (one) => void Object.assign(row(one), { state: 'FAILED' })],
  ['I2', 'two final states seen', ({ history, id }) => void history.push({ what: 'seen', id, state: 'FAILED', version: 2 })],
  ['I2', 'a state after the final one', ({ history, id }) => void history.push({ what: 'seen', id, state: 'RUNNING', version: 2 })],
  ['I2', 'a version after the final one', (one) => void Object.assign(row(one), { version: 3 })],
  ['I2', 'two results', ({ history, id }) => void history.push({ what: 'seen', id, state: 'SUCCEEDED', version: 2, output: '2' })],
  ['I2', 'a place of one that has ended', ({ tables, id }) => void tables.places.push({ id, place: 'ready' })],
  ['I3', 'two attempts that succeeded', (one) => void one.tables.attempts.push({ ...attempt(one), number: 2, logCount: 0, sha256: null })],
  ['I3', 'a missing attempt', (one) => void Object.assign(attempt(one), { number: 2 })],
  ['I3', 'a success without an attempt', (one) => void Object.assign(attempt(one), { state: 'LOST' })],
  ['I3', 'a count that is not that of the attempts', (one) => void Object.assign(row(one), { attemptCount: 2 })],
  ['I3', 'an attempt that goes on after the end', (one) => void one.tables.attempts.push({ ...attempt(one), number: 2, state: 'RUNNING' })],
  ['I3', 'two events of one end', ({ history, id }) => void history.push({ what: 'told', event: 'e3', type: 'ended', id })],
  ['I3', 'lines of a claim that was not the attempt’s', (one) => void Object.assign(attempt(one), { claim: OTHER })],
  ['I3', 'lines of two claims', (one) => void Object.assign(line(one, 1), { text: `claim ${OTHER} two` })],
  ['I4', 'a gap in what is stored', (one) => void Object.assign(line(one, 1), { seq: 2 })],
  ['I4', 'a line that is stored twice', (one) => void one.tables.lines.push(line(one, 1))],
  ['I4', 'a count that is not that of the lines', (one) => void Object.assign(attempt(one), { logCount: 3 })],
  ['I4', 'a hash of other lines', (one) => void Object.assign(attempt(one), { sha256: 'c'.repeat(64) })],
  ['I4', 'a reader who saw a gap', ({ history, id }) => void history.push({ what: 'log', id, entries: [{ attempt: 1, seq: 0, text: texts[0] ?? '' }, { attempt: 1, seq: 2, text: 'two' }], ends: [], isWhole: false })], // biome-ignore format: a row
  ['I4', 'a reader who saw another line', ({ history, id }) => void history.push({ what: 'log', id, entries: [{ attempt: 1, seq: 1, text: 'three' }], ends: [], isWhole: false })], // biome-ignore format: a row
  ['I4', 'a whole log with a line missing', ({ history, id }) => void history.push({ what: 'log', id, entries: entries.slice(0, 1), ends: [], isWhole: true })], // biome-ignore format: a row
  ['I4', 'a reader who was told another hash', ({ history, id }) => void history.push({ what: 'log', id, entries, ends: [{ attempt: 1, count: 2, sha256: 'd' }], isWhole: true })], // biome-ignore format: a row
  ['I5', 'two executions of one key', ({ history, tables }) => {
    const id = newId('execution');
    history.push({ what: 'accepted', key: 'k', body: 'b', id });
    tables.executions.push({ id, state: 'QUEUED', version: 1, attemptCount: 0, output: null });
  }], // biome-ignore format: a row
  ['I5', 'another body with the same key', ({ history, id }) => void history.push({ what: 'accepted', key: 'k', body: 'c', id })],
  ['I5', 'one execution of two keys', ({ history, id }) => void history.push({ what: 'accepted', key: 'l', body: 'b', id })],
  ['I6', 'a change after CANCELLED', (one) => {
    cancelled(one);
    row(one).version = 3;
  }], // biome-ignore format: a row
  ['I6', 'an attempt that goes on after CANCELLED', (one) => {
    cancelled(one);
    attempt(one).state = 'RUNNING';
  }], // biome-ignore format: a row
  ['I7', 'one that waits for ever', (one) => {
    const id = newId('execution');
    one.tables.executions.push({ id, state: 'QUEUED', version: 1, attemptCount: 0, output: null });
    one.tables.waitsForEver.push({ id, why: 'it stands nowhere' });
  }], // biome-ignore format: a row
];

describe('the checker', () => {
  it('has nothing to say about what is right', () => {
    const { history, tables } = story();
    expect(judge(history, tables)).to.deep.equal({ violations: [], unfinished: [] });
    const one = story();
    cancelled(one);
    expect(judge(one.history, one.tables).violations).to.deep.equal([]);
  });

  for (const [promise, what, spoil] of breaches) {
    it(`sees, for ${promise}, ${what}`, () => {
      const one = story();
      spoil(one);
      const { violations } = judge(one.history, one.tables);
      expect([...new Set(violations.map((violation) => violation.promise))], JSON.stringify(violations)).to.include(promise);
    });
  }

  it('tells what is unfinished from what is lost', () => {
    const { history, tables } = story();
    const [waits, lost] = [newId('execution'), newId('execution')];
    for (const [index, id] of [waits, lost].entries()) {
      history.push({ what: 'accepted', key: `w${index}`, body: 'b', id });
      tables.executions.push({ id, state: 'QUEUED', version: 1, attemptCount: 0, output: null });
    }
    tables.waitsForEver.push({ id: lost, why: 'it stands nowhere' });
    const { violations, unfinished } = judge(history, tables);
    expect(unfinished).to.deep.equal([waits]);
    expect(violations).to.deep.equal([{ promise: 'I7', id: lost, why: 'it stands nowhere' }]);
  });

  it('reads a history from its file', () => {
    const folder = mkdtempSync(join(tmpdir(), 'millrace-history-'));
    const { history } = story();
    writeFileSync(join(folder, 'h.jsonl'), `${history.map((one) => JSON.stringify(one)).join('\n')}\n`);
    expect(readHistory(join(folder, 'h.jsonl'))).to.deep.equal(history);
    rmSync(folder, { recursive: true });
  });
});

describe('the query of I7', function () {
  this.timeout(60_000);
  let schema: Schema;
  before(async () => {
    schema = await startSchema();
  });
  after(() => schema?.stop());
  beforeEach(async () => {
    for (const table of ['lanes', 'limits', 'slots', 'ready', 'waiting', 'timers', 'running', 'executions', 'servers'])
      await schema.db(table).del();
    await schema.db('lanes').insert({ lane: 1, workspace: newBytes(), queue: 'default', selector: 'any', fairness_key: '', state: 'ACTIVE', weight: 1 }); // biome-ignore format: a row
  });
  const found = async () =>
    (await schema.db.raw(I7))[0].map(({ id, why }: { id: Buffer; why: string }) => [fromBytes('execution', id), why]);
  const name = (id: Buffer | undefined) => fromBytes('execution', id as Buffer);
  const past = () => schema.db.raw('NOW(6) - INTERVAL 1 HOUR');
  const limited = { limitKey: 'k', automation: newBytes() };

  it('finds nothing where all is well', async () => {
    await schema.db('limits').insert({ limit_key: 'k', max: 1, used: 1, automation: limited.automation, policy: 'QUEUE' });
    await accept(schema.db, [{}, limited, { ...limited, waits: true }, { inMs: 1000 }]);
    expect(await found()).to.deep.equal([]);
    const { world } = schema;
    expect(await check([], world.config, schemaOf(world.config, 'executions'))).to.deep.equal({ violations: [], unfinished: [] });
  });

  it('finds what stands nowhere, twice, or on a lane that nobody serves', async () => {
    const [nowhere, twice, orphan] = await accept(schema.db, [{}, {}, { lane: 2 }]);
    await schema.db('ready').where({ execution: nowhere }).del();
    const { tag, ...ready } = await schema.db('ready').where({ execution: twice }).first();
    await schema.db('timers').insert({ ...ready, kind: 'RETRY', due_time: schema.db.raw('NOW(6)') });
    expect(tag).to.be.a('number');
    expect(await found()).to.have.deep.members([
      [name(nowhere), 'it stands nowhere'],
      [name(twice), 'it stands in several places'],
      [name(orphan), 'nobody serves its lane'],
    ]);
  });

  it('finds what nobody ended in time, and what runs on a server that nobody knows', async () => {
    const [late, lost] = await accept(schema.db, [{}, {}]);
    await schema.db('ready').where({ execution: late }).update({ expire_time: past() });
    const { tag, ...ready } = await schema.db('ready').where({ execution: lost }).first();
    await schema.db('ready').where({ execution: lost }).del();
    const now = schema.db.raw('NOW(6)');
    const claim = { workspace: newBytes(), claim_id: newBytes(), server: newBytes(), state: 'RUNNING', started: 0, claim_time: now };
    await schema.db('running').insert({ ...ready, ...claim, deadline: schema.db.raw('NOW(6) + INTERVAL 1 HOUR') });
    expect(tag).to.be.a('number');
    expect(await found()).to.have.deep.members([
      [name(late), 'its time was over, and nobody acted'],
      [name(lost), 'nobody knows its server'],
    ]);
  });

  it('finds a first waiter that nobody promotes, and a slot that nobody holds', async () => {
    await schema.db('limits').insert({ limit_key: 'k', max: 1, used: 0, automation: limited.automation, policy: 'QUEUE' });
    const [waiter] = await accept(schema.db, [{ ...limited, waits: true }]);
    expect(await found()).to.deep.equal([[name(waiter), 'there is room, and nobody lets it in']]);
    await schema.db('limits').update({ used: 1 });
    await schema.db('slots').insert({ limit_key: 'k', execution: newBytes() });
    expect(await found()).to.deep.equal([[name(waiter), 'it waits for a slot that nobody holds']]);
  });
});
