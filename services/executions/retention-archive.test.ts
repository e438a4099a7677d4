import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import { expect } from 'chai';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { blobSettings, openBlobs } from '#platform/blob.ts';
import { readSettings } from '#platform/config.ts';
import { openPool, type Pool, schemaOf } from '#platform/db.ts';
import { startObjects } from '../../tests/objects.ts';
import type { World } from '../../tests/world.ts';
import { caught, draft, endAttempt, endExecution, lines, publish, startAttempt, startExecutions, writeLines } from './fixture.test.ts';
import { archiveWeek } from './retention-archive-system.ts';
import { dropHistory } from './retention-system.ts';

const WEEK_MS = 7 * 24 * 3_600_000;
const log = { info: () => undefined, warn: () => undefined };

describe('a week that is kept as a file', function () {
  this.timeout(60_000);
  let world: World;
  let pool: Pool;
  let folder: string;
  before(async () => {
    world = await startExecutions();
    pool = openPool(world.config, schemaOf(world.config, 'executions'), 2);
    folder = mkdtempSync(join(tmpdir(), 'millrace-archive-'));
  });
  after(async () => {
    rmSync(folder, { recursive: true, force: true });
    await pool.end();
    await world.stop();
  });

  const later = new Date(Date.now() + 3 * WEEK_MS);
  const drop = (into: string | undefined, signal = new AbortController().signal) =>
    dropHistory({ pool, weeks: 1, now: later, log, keep: archiveWeek.bind(undefined, openBlobs({ blobFolder: into }), signal) });
  const fileOf = (week: string) => join(folder, 'kept', week.slice(-2), `history_${week}`);

  it('holds its executions with input, output, attempts and log, and only then is dropped', async () => {
    const person = world.person();
    const client = world.as(person, ExecutionServiceService);
    const automationId = await publish(world, { workspace: person.workspace });
    const large = 'x'.repeat(20_000);
    const ids: string[] = [];
    for (const n of [0, 1, 2]) {
      const { id } = await client.createExecution({ execution: draft(automationId, { input: { n, large } }), requestId: '' });
      await startAttempt(world, id, 1);
      await writeLines(world, id, 1, lines(0, 3));
      await writeLines(world, id, 1, lines(3, 5));
      await endAttempt(world, id, 1, 'SUCCEEDED', lines(0, 5));
      await endExecution(world, id, 'SUCCEEDED', { output: `{"n":${n}}` });
      ids.push(id);
    }
    const seen = await client.getExecution({ id: ids[1] as string });

    expect((await caught(drop(undefined))).message, 'no folder').to.include('MILLRACE_BLOB_FOLDER');
    const given = new AbortController();
    given.abort(new Error('the process stops'));
    expect((await caught(drop(folder, given.signal))).message).to.equal('the process stops');
    expect(await client.getExecution({ id: ids[1] as string }), 'still there').to.deep.equal(seen);

    const { dropped } = await drop(folder);
    expect((await caught(client.getExecution({ id: ids[1] as string }))).reason).to.equal('RESOURCE_NOT_FOUND');
    const week = dropped.find((one) => readFileSync(fileOf(one)).length > 100) as string;
    const kept = zstdDecompressSync(readFileSync(fileOf(week))).toString().trimEnd().split('\n').map((line) => JSON.parse(line)); // biome-ignore format: a row
    expect(kept.at(-1)).to.deep.equal({ type: 'end', executions: 3 });
    const executions = kept.filter(({ type }) => type === 'execution');
    expect(executions.map(({ execution }) => execution.id)).to.deep.equal(ids);
    expect(executions[1]).to.deep.include({ workspaceId: person.workspace });
    expect(executions[1].execution).to.deep.include({ state: 'SUCCEEDED', input: { n: 1, large }, output: { n: 1 }, automationId });
    const own = kept.filter(({ executionId }) => executionId === ids[1]);
    expect(own.filter(({ type }) => type === 'attempt').map(({ attempt }) => attempt.state)).to.deep.equal(['SUCCEEDED']);
    expect(own.filter(({ type }) => type === 'log').map(({ entry }) => [entry.cursor, entry.text])).to.deep.equal(
      [0, 1, 2, 3, 4].map((seq) => [`1.${seq}`, `line ${seq}`]),
    );
  });

  it('is not written again, should the drop have been cut off', async () => {
    const connection = await pool.getConnection();
    const signal = new AbortController().signal;
    const [[{ name }]] = (await connection.query(
      "SELECT partition_name AS name FROM information_schema.partitions WHERE table_schema = DATABASE() AND table_name = 'executions' ORDER BY partition_ordinal_position LIMIT 1",
    )) as unknown as [[{ name: string }]];
    const archived = await archiveWeek(openBlobs({ blobFolder: folder }), signal, connection, name);
    expect(archived).to.deep.include({ key: `history_${name}`, executions: 0 });
    expect(archived?.bytes).to.equal(readFileSync(fileOf(name)).length);
    expect(await archiveWeek(openBlobs({ blobFolder: folder }), signal, connection, name)).to.equal(undefined);
    const objects = await startObjects();
    const store = openBlobs(readSettings(blobSettings, { MILLRACE_BLOB_FOLDER: folder, ...objects.env }));
    expect(await archiveWeek(store, signal, connection, name)).to.deep.equal(archived);
    expect(await store.size(`history_${name}`)).to.equal(archived?.bytes);
    expect(await archiveWeek(store, signal, connection, name)).to.equal(undefined);
    objects.link.cut('refused');
    expect((await caught(archiveWeek(store, signal, connection, name))).reason).to.equal('DEPENDENCY_UNAVAILABLE');
    await objects.stop();
    connection.release();
  });
});
