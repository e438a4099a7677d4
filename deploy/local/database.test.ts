import { expect } from 'chai';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { connectionOf } from '#platform/db.ts';
import { type Stack, startStack } from './stack.ts';

describe('a database of the launcher', function () {
  this.timeout(60_000);
  const stacks: Stack[] = [];
  const start = async () => {
    stacks.push(await startStack({ parts: ['database'], say: () => undefined }));
    return createConnection(connectionOf({ databaseUrl: stacks.at(-1)?.wiring.databaseUrl ?? '' }));
  };
  after(async () => {
    for (const stack of stacks) await stack.stop();
  });

  it('keeps its temporary tables when another one starts on the same machine', async () => {
    const one = await start();
    await one.query('CREATE DATABASE work; USE work; CREATE TEMPORARY TABLE kept (a TEXT) ENGINE = Aria; INSERT INTO kept VALUES (1)');
    const other = await start();
    await one.query('INSERT INTO kept VALUES (2); DROP TEMPORARY TABLE kept');
    const [[found]] = await one.query<RowDataPacket[]>('SELECT @@tmpdir AS folder');
    expect(found?.folder).to.equal(`${stacks[0]?.layout.data}/mysql.tmp`);
    one.destroy();
    other.destroy();
  });
});
