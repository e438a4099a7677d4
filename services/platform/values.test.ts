import { expect } from 'chai';
import fc from 'fast-check';
import { Schedule } from '#gen/millrace/schedules/v1/schedule.ts';
import { often } from '../../tests/long.ts';
import { ConfigFault, integer, readSettings, setting, text } from './config.ts';
import { Fault } from './errors.ts';
import { fromBytes, newId, toBytes } from './id.ts';
import { openLog } from './log.ts';
import { maskedFields } from './mask.ts';
import { decodePage, encodePage } from './paging.ts';
import { withKeepAlive } from './stream.ts';

const refusalOf = (work: () => unknown): Fault => {
  try {
    work();
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error('it was not refused');
};
const reasonOf = (work: () => unknown): string => refusalOf(work).reason;

describe('an id', () => {
  it('comes back from its text, whatever its bytes', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
        (bytes) => void expect([...toBytes('task', fromBytes('task', bytes))]).to.deep.equal([...bytes]),
      ),
      often('ids of any bytes'),
    );
  });
  it('sorts by its bytes', () => {
    const bytes = fc.uint8Array({ minLength: 16, maxLength: 16 });
    fc.assert(
      fc.property(
        bytes,
        bytes,
        (a, b) =>
          void expect(Math.sign(Buffer.compare(a, b))).to.equal(Math.sign(fromBytes('task', a).localeCompare(fromBytes('task', b), 'en'))),
      ),
      often('ids that sort by their bytes'),
    );
  });
  it('sorts behind those that the process made before it, and is a UUIDv7', () => {
    const ids = Array.from({ length: 10_000 }, () => newId('task'));
    expect(ids).to.deep.equal(ids.toSorted());
    expect(new Set(ids).size).to.equal(ids.length);
    const bytes = Buffer.from(toBytes('task', ids.at(-1) as string));
    expect(Date.now() - bytes.readUIntBE(0, 6)).to.be.within(0, 60_000);
    expect([(bytes[6] as number) >> 4, (bytes[8] as number) >> 6], 'version and variant').to.deep.equal([7, 2]);
  });
  it('of another kind or form is refused', () => {
    const good = newId('task');
    for (const bad of [
      '',
      'tsk_',
      newId('user'),
      `${good}0`,
      good.slice(0, -1),
      good.toUpperCase(),
      `tsk_8${good.slice(5)}`,
      `${good.slice(0, -1)}u`,
    ]) {
      expect(
        reasonOf(() => toBytes('task', bad)),
        bad,
      ).to.equal('ID_INVALID');
    }
  });
});

describe('settings', () => {
  const settings = { a: setting('A', text, 'the first'), b: setting('B', integer(7, 1, 9), 'the second') };
  it('tell every fault at once, by name', () => {
    expect(() => readSettings(settings, { B: '12' })).to.throw(ConfigFault, /A: is not set \(the first\)[\s\S]*B: must be at most 9/);
  });
  it('have defaults, and may stand in a file', () => {
    expect(readSettings(settings, { A_FILE: new URL('../../.npmrc', import.meta.url).pathname })).to.deep.include({ b: 7 });
    expect(() => readSettings(settings, { A_FILE: '/nowhere' })).to.throw(/A_FILE: ENOENT/);
  });
});

describe('an update mask', () => {
  const known = ['name', 'labels', 'input', 'priority', 'pause_on_failure', 'spec', 'catch_up_window'] as const;
  const present = (body: object, mask: readonly string[] = []) => maskedFields(mask, Schedule.fromPartial(body), known, Schedule);
  it('names fields, or those present count', () => {
    expect(present({ name: 'x' }, ['labels'])).to.deep.equal(['labels']);
    expect(present({ name: 'x', labels: { a: 'b' }, spec: { crons: [] } })).to.deep.equal(['name', 'labels', 'spec']);
  });
  it('counts 0, false and nothing in it as present where the contract tells them from unset', () => {
    expect(present({ priority: 0, pauseOnFailure: false, input: {} })).to.deep.equal(['input', 'priority', 'pause_on_failure']);
    expect(reasonOf(() => present({ name: '', labels: {} }))).to.equal('NO_FIELDS');
  });
  it('refuses fields that cannot be changed, and nothing', () => {
    expect(refusalOf(() => present({}, ['pause_reason']))).to.deep.include({
      reason: 'FIELD_INVALID',
      violations: [
        {
          field: 'updateMask',
          description:
            'names pauseReason, which cannot be changed; those that can are name, labels, input, priority, pauseOnFailure, spec, catchUpWindow',
        },
      ],
    });
    expect(reasonOf(() => present({}))).to.equal('NO_FIELDS');
  });
});

describe('a page token', () => {
  it('is bound to its query', () => {
    const token = encodePage({ a: 1 }, ['x', 2]);
    expect(decodePage(token, { a: 1 })).to.deep.equal(['x', 2]);
    expect(reasonOf(() => decodePage(token, { a: 2 }))).to.equal('PAGE_TOKEN_INVALID');
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), (junk) => void expect(reasonOf(() => decodePage(junk, {}))).to.equal('PAGE_TOKEN_INVALID')),
      often('page tokens of any text'),
    );
  });
});

describe('a log', () => {
  it('hides secrets wherever they stand, and statements of the database', () => {
    const lines: string[] = [];
    const log = openLog('info', { write: (line) => void lines.push(line) });
    log.info({ password: 'canary', request: { refreshToken: 'canary', deep: { authorization: 'canary' } } }, 'x');
    log.error(
      { error: Object.assign(new Error("insert into t values ('canary')"), { sqlMessage: 'Duplicate entry', sql: 'canary' }) },
      'y',
    );
    log.error({ natsUrl: 'nats://ann:canary@host', error: new Error('no answer of nats://ann:canary@host:4222/x') }, 'z');
    expect(lines.join('')).not.to.include('canary');
    expect(lines.join('')).to.include('Duplicate entry').and.include('nats://[redacted]@host:4222/x');
  });
});

describe('a stream', () => {
  it('shows that it lives while nothing comes, passes every frame once, and ends with its source', async () => {
    async function* slow() {
      yield 1;
      await new Promise((resolve) => setTimeout(resolve, 60));
      yield 2;
    }
    const frames: number[] = [];
    for await (const frame of withKeepAlive(slow(), 10, () => 0, new AbortController().signal)) frames.push(frame);
    expect(frames.filter((one) => one > 0)).to.deep.equal([1, 2]);
    expect(frames.filter((one) => one === 0)).not.to.have.length(0);
  });
  it('closes its source when the reader leaves', async () => {
    let closed = false;
    async function* source() {
      try {
        for (;;) yield 1;
      } finally {
        closed = true;
      }
    }
    for await (const _ of withKeepAlive(source(), 1000, () => 0, new AbortController().signal)) break;
    expect(closed).to.equal(true);
  });
});
