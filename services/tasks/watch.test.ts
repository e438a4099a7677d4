import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { type Task, Task_State } from '#gen/millrace/tasks/v1/task.ts';
import { CreateTaskRequest, TaskServiceService, type WatchTasksResponse } from '#gen/millrace/tasks/v1/task_service.ts';
import { type Bus, openBus } from '#platform/bus.ts';
import type { ClientOf } from '#platform/client.ts';
import { openKnex, schemaOf } from '#platform/db.ts';
import { openLog } from '#platform/log.ts';
import { type Person, startWorld, until, type World } from '../../tests/world.ts';
import * as events from './events.ts';
import { module } from './module.ts';
import { watch } from './watch.ts';

describe('a watch of tasks', () => {
  const log = openLog('silent');
  let world: World;
  let person: Person;
  let service: ClientOf<TaskServiceService>;
  let leave: AbortController;

  before(async () => {
    world = await startWorld({ targets: ['tasks'], modules: [module], env: { MILLRACE_EXECUTIONS_URL: '127.0.0.1:1' } });
  });
  after(() => world?.stop());
  beforeEach(() => {
    person = world.person();
    service = world.as(person, TaskServiceService);
    leave = new AbortController();
  });
  afterEach(() => leave.abort());

  const create = (title: string): Promise<Task> => service.createTask(CreateTaskRequest.fromPartial({ task: { title } as Task }));

  const PATIENCE_MS = 4000; // less than the time after which a watch looks, or shows that it lives, by itself

  // Collects the frames of a stream; `begun` resolves with the first one.
  function collect(stream: AsyncIterable<WatchTasksResponse>) {
    const frames: WatchTasksResponse[] = [];
    const done = (async () => {
      for await (const frame of stream) frames.push(frame);
    })();
    done.catch(() => undefined);
    return { frames, done, begun: until('the first frame', () => frames[0], PATIENCE_MS), changes: () => frames.flatMap(brief) };
  }
  const brief = ({ task, deletedId }: WatchTasksResponse) =>
    task ? [`${task.title} ${task.version}`] : deletedId ? [`deleted ${deletedId}`] : [];
  const open = () => collect(service.watchTasks({}, { signal: leave.signal }));
  const has = (watched: ReturnType<typeof collect>, change: string) => until(change, () => watched.changes().includes(change), PATIENCE_MS);

  it('begins with a sign of life, then brings every change from then on, each once', async () => {
    await create('before');
    const watched = open();
    expect(await watched.begun)
      .to.have.property('keepAlive')
      .that.deep.equals({});
    const { id } = await create('milk');
    await has(watched, 'milk 1');
    await service.startTask({ id });
    await has(watched, 'milk 2');
    await service.startTask({ id });
    await service.deleteTask({ id });
    await has(watched, `deleted ${id}`);
    expect(watched.changes()).to.deep.equal(['milk 1', 'milk 2', `deleted ${id}`]);
    const started = watched.frames.find(({ task }) => task?.version === 2)?.task;
    expect(started).to.include({ id, state: Task_State.IN_PROGRESS });
  });

  it('brings a version once, however often it is told of it', async () => {
    const bus = openBus(world.config, log);
    const watched = collect(watch({ db: world.db('tasks'), bus, log }, person.workspace, leave.signal));
    await watched.begun;
    const { id } = await create('milk');
    await has(watched, 'milk 1');
    for (let index = 0; index < 3; index += 1) events.notice(bus, person.workspace, id);
    await create('last');
    await has(watched, 'last 1');
    expect(watched.changes()).to.deep.equal(['milk 1', 'last 1']);
    leave.abort();
    await watched.done;
    await bus.stop();
  });

  it('brings nothing of another workspace', async () => {
    const watched = open();
    await watched.begun;
    const elsewhere = world.as(world.person({ user: person.user }), TaskServiceService);
    await elsewhere.createTask(CreateTaskRequest.fromPartial({ task: { title: 'theirs' } as Task }));
    await create('ours');
    await has(watched, 'ours 1');
    expect(watched.changes()).to.deep.equal(['ours 1']);
  });

  it('shows that it lives while nothing changes', async () => {
    const watched = open();
    await until('a second sign of life', () => watched.frames.filter(({ keepAlive }) => keepAlive).length >= 2, 15_000);
    expect(watched.changes()).to.deep.equal([]);
  });

  it('ends with its reason when the server stops', async () => {
    const watched = open();
    await watched.begun;
    await world.restart();
    await watched.done;
    expect(watched.frames.at(-1)?.end?.code).to.equal(status.UNAVAILABLE);
    service = world.as(person, TaskServiceService);
    const again = open();
    await again.begun;
    await create('after');
    await has(again, 'after 1');
  });

  describe('whose notices are lost', () => {
    // The real bus, deaf to notices, whose reconnection the test tells.
    let bus: Bus;
    let reconnect: () => void;
    const deaf = (): Bus => ({
      ...bus,
      onNotice: () => () => undefined,
      onReconnect: (listen) => {
        reconnect = listen;
        return () => undefined;
      },
    });
    before(() => {
      bus = openBus(world.config, log);
    });
    after(() => bus.stop());
    const openDeaf = (lookEveryMs: number) =>
      collect(watch({ db: world.db('tasks'), bus: deaf(), log, lookEveryMs }, person.workspace, leave.signal));

    it('looks by itself, and misses neither change nor deletion', async () => {
      const kept = await create('kept');
      const gone = await create('gone');
      const watched = openDeaf(50);
      await watched.begun;
      await service.startTask({ id: kept.id });
      await service.deleteTask({ id: gone.id });
      await create('new');
      await Promise.all(['kept 2', 'new 1', `deleted ${gone.id}`].map((change) => has(watched, change)));
      await create('last');
      await has(watched, 'last 1');
      expect(watched.changes().sort(), 'each once').to.deep.equal([`deleted ${gone.id}`, 'kept 2', 'last 1', 'new 1']);
    });

    it('looks at once when the bus is back', async () => {
      const watched = openDeaf(3_600_000);
      await watched.begun;
      await create('missed');
      reconnect();
      await has(watched, 'missed 1');
    });

    it('ends with a frame that says so when the database fails', async () => {
      const db = openKnex(world.config, schemaOf(world.config, 'tasks'), 2);
      const watched = collect(watch({ db, bus: deaf(), log, lookEveryMs: 10 }, person.workspace, leave.signal));
      await watched.begun;
      await db.destroy();
      await watched.done;
      expect(watched.frames.at(-1)?.end?.code).to.be.above(status.OK);
    });
  });
});
