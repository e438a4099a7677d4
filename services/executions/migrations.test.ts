import { expect } from 'chai';
import { openKnex, schemaOf } from '#platform/db.ts';
import { migrate, rollback } from '#platform/migrate.ts';
import { startWorld, type World } from '../../tests/world.ts';
import { schemaOnly } from './engine/fixture.test.ts';

describe('the schema of executions', function () {
  this.timeout(120_000);
  let world: World;
  before(async () => {
    world = await startWorld({ targets: ['executions'], modules: [schemaOnly] });
  });
  after(() => world.stop());

  it('goes back step by step, and forth, also when a step was half done before', async () => {
    const config = { ...world.config, databasePrefix: `${world.config.databasePrefix}_down` };
    const area = { name: 'executions', migrations: schemaOnly.migrations as URL };
    const up = await migrate(config, area);
    for (const name of up.toReversed()) expect(await rollback(config, area)).to.deep.equal([name]);
    expect(await migrate(config, area), 'and forth').to.deep.equal(up);
    const knex = openKnex(config, schemaOf(config, 'executions'), 1);
    await knex('migrations').where('name', '>=', '0016').whereNot('name', 'like', 'platform%').delete(); // as after a kill before the step was written down
    await knex.destroy();
    expect(await migrate(config, area)).to.deep.equal(up.filter((name) => /^00(1[6-9]|[23])/.test(name)));
  });
});
