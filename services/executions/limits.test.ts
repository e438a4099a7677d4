import { expect } from 'chai';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import { Execution } from '#gen/millrace/executions/v1/execution.ts';
import { openPool, type Pool, schemaOf } from '#platform/db.ts';
import { fromBytes, newBytes } from '#platform/id.ts';
import { type Asked, openAccept } from './accept.ts';
import { breaches, type Schema, startSchema } from './engine/fixture.test.ts';
import { draftOf } from './execution.ts';
import { apply } from './projection.ts';
import { openRevisions } from './revisions.ts';

describe('accepting behind limits, by several processes', () => {
  let schema: Schema;
  let pools: Pool[];
  const workspace = newBytes();
  const automation = newBytes();
  before(async () => {
    schema = await startSchema();
    pools = [1, 2, 3].map(() => openPool(schema.world.config, schemaOf(schema.world.config, 'executions'), 2));
    const known = { id: automation, name: 'one', version: 1, publishedRevision: 1, disabled: false, deleted: false };
    await apply(schema.db, workspace, known, [{ number: 1, spec: AutomationSpec.fromPartial({ source: 'pass' }) }]);
  });
  after(async () => {
    for (const pool of pools) await pool.end();
    await schema.stop();
  });

  const rung = new Set<number>();
  const openProcess = (pool: Pool) =>
    openAccept({
      pool,
      revisions: openRevisions(pool),
      admit: async () => undefined,
      laneOf: async () => 7,
      accepted: (lanes) => {
        for (const lane of lanes) rung.add(lane);
      },
    });

  // An automation for each limit, so that the limit has a name here.
  const known = new Map<string, { automation: Buffer; key: string }>();
  async function limit(name: string, max: number): Promise<void> {
    const id = newBytes();
    const key = `${fromBytes('automation', id)} []`;
    const concurrency = { max, key: [], policy: 1 as const, maxQueued: 0 };
    const spec = AutomationSpec.fromPartial({ source: 'pass', concurrency });
    await apply(schema.db, workspace, { id, name, version: 1, publishedRevision: 1, disabled: false, deleted: false }, [
      { number: 1, spec },
    ]);
    known.set(name, { automation: id, key });
  }
  const keyOf = (name: string) => ({ limit_key: known.get(name)?.key ?? '' });

  const asked = (name: string | null, rest: Partial<Asked> = {}): Asked => ({
    id: newBytes(),
    workspace,
    creator: newBytes(),
    lane: 7,
    draft: draftOf(
      Execution.fromPartial({
        automationId: fromBytes('automation', name === null ? automation : (known.get(name)?.automation ?? newBytes())),
      }),
    ),
    key: undefined,
    traceparent: null,
    ...rest,
  });

  it('gives the slots that there are, and lets the others wait in the order of their coming', async () => {
    await limit('a', 2);
    const accept = openProcess(pools[0] as Pool);
    const all = [asked('a'), asked('a'), asked('a'), asked(null), asked('a')];
    await Promise.all(all.map(accept));
    const waiting = await schema.db('waiting').where(keyOf('a')).orderBy('seq');
    expect(waiting.map(({ execution }) => execution)).to.deep.equal([all[2]?.id, all[4]?.id]);
    expect(await schema.db('slots').where(keyOf('a'))).to.have.length(2);
    expect(await schema.db('limits').where(keyOf('a')).first()).to.include({ used: 2 });
    expect(await breaches(schema.db)).to.deep.equal({ misplaced: 0, slots: 0 });
    expect([...rung]).to.deep.equal([7]);
  });

  it('takes no slot for what starts later', async () => {
    await limit('b', 1);
    const later = asked('b');
    later.draft.scheduleTime = new Date(Date.now() + 3_600_000);
    await openProcess(pools[0] as Pool)(later);
    expect(await schema.db('timers').where({ execution: later.id }).first()).to.include({ ...keyOf('b'), kind: 'START' });
    expect(await schema.db('limits').where(keyOf('b')).first()).to.include({ used: 0 });
  });

  it('never gives more slots than there are', async () => {
    const keys = Array.from({ length: 30 }, (_, index) => `e${index}`);
    for (const key of keys) await limit(key, 1);
    const processes = pools.map(openProcess);
    for (const key of keys) await Promise.all(processes.map((accept) => accept(asked(key))));
    for (const key of keys) expect(await schema.db('ready').where(keyOf(key)), key).to.have.length(1);
    expect(await breaches(schema.db)).to.deep.equal({ misplaced: 0, slots: 0 });
  });

  it('makes one of one key, and gives its slot once', async () => {
    await limit('c', 5);
    await limit('d', 3);
    const processes = pools.map(openProcess);
    const keys = Array.from({ length: 60 }, () => ({ hash: newHash(), request: newHash() }));
    const made = await Promise.all(
      Array.from({ length: 360 }, (_, index) => {
        const key = keys[index % 120]; // half of them have a key, each three times
        const limit = (index % 120) % 3 === 0 ? null : (index % 120) % 3 === 1 ? 'c' : 'd';
        return (processes[index % 3] as (one: Asked) => Promise<{ id: string }>)(asked(limit, { key }));
      }),
    );
    const ids = new Set(made.map(({ id }) => id));
    expect(ids.size).to.equal(60 + 180);
    for (let index = 0; index < 60; index += 1) {
      expect(new Set([made[index]?.id, made[index + 120]?.id, made[index + 240]?.id]).size).to.equal(1);
    }
    expect(await schema.db('ready').where(keyOf('c'))).to.have.length(5);
    expect(await schema.db('ready').where(keyOf('d'))).to.have.length(3);
    expect(await breaches(schema.db)).to.deep.equal({ misplaced: 0, slots: 0 });
  });
});

const newHash = (): Buffer => Buffer.concat([newBytes(), newBytes()]);
