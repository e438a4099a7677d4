import { expect } from 'chai';
import { openBus } from '#platform/bus.ts';
import { openLog } from '#platform/log.ts';
import { until, type World } from '../../tests/world.ts';
import * as notices from './engine/notices.ts';
import { startExecutions } from './fixture.test.ts';
import { type Hearing, openHearing } from './hearing.ts';

describe('hearing of changes', () => {
  let world: World;
  let bus: ReturnType<typeof openBus>;
  let subscribed: string[];
  let hearing: ReturnType<typeof openHearing>;
  before(async () => {
    world = await startExecutions();
    bus = openBus(world.config, openLog('silent'));
    await bus.connection();
  });
  after(async () => {
    await bus.stop();
    await world.stop();
  });
  beforeEach(() => {
    subscribed = [];
    const counted: Hearing = {
      onReconnect: bus.onReconnect,
      onNotice(subject, listen, group) {
        subscribed.push(subject);
        return bus.onNotice(subject, listen, group);
      },
    };
    hearing = openHearing(counted);
  });
  afterEach(() => hearing.stop());

  it('reaches all who wait for the execution, nobody else, and nobody who has gone, by one subscription', async () => {
    const heard: string[] = [];
    const hear = (who: string) => (data: Uint8Array) => heard.push(`${who} ${Buffer.from(data)}`);
    const leave = hearing.onNotice(notices.changed('exe_a'), hear('first'));
    hearing.onNotice(notices.changed('exe_a'), hear('second'));
    hearing.onNotice(notices.changed('exe_b'), hear('other'));
    hearing.onNotice(notices.logs('exe_a'), hear('reader'));
    expect(subscribed).to.deep.equal([notices.changed('*'), notices.logs('exe_a')]);
    const tell = (text: string) => bus.notify(notices.changed('exe_a'), text);
    tell('one');
    await until('both to hear', () => heard.length === 2);
    leave();
    leave();
    tell('two');
    bus.notify(notices.logs('exe_a'), 'lines');
    await until('the reader to hear', () => heard.includes('reader lines'));
    expect(heard).to.deep.equal(['first one', 'second one', 'second two', 'reader lines']);
  });
});
