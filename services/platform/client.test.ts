import { expect } from 'chai';
import { Task } from '#gen/millrace/tasks/v1/task.ts';
import { TaskServiceService } from '#gen/millrace/tasks/v1/task_service.ts';
import { type Person, startWorld, until, type World } from '../../tests/world.ts';
import { module } from '../tasks/module.ts';
import { type Dialer, openDialer } from './client.ts';
import { Fault } from './errors.ts';

const IDLE_MS = 100;

describe('channels to servers', () => {
  let world: World;
  let dialer: Dialer;
  let ann: Person;
  before(async () => {
    world = await startWorld({ targets: ['tasks'], modules: [module], env: { MILLRACE_EXECUTIONS_URL: '127.0.0.1:1' } });
    ann = world.person();
  });
  beforeEach(() => {
    dialer = openDialer({ contract: world.contract, sign: () => world.token(ann), idleMs: IDLE_MS });
  });
  afterEach(() => dialer.close());
  after(() => world.stop());

  const list = { states: [], assigneeId: '', text: '', pageSize: 0, pageToken: '', orderBy: '' };

  it('are shared while they are used, closed when they are not, and opened again', async () => {
    const [one, other] = [dialer.client(TaskServiceService, world.grpcAddress), dialer.client(TaskServiceService, world.grpcAddress)];
    await Promise.all([one.listTasks(list), other.listTasks(list)]);
    expect(dialer.channels()).to.equal(1);
    await until('it to be closed', () => dialer.channels() === 0);
    expect((await one.listTasks(list)).tasks).to.deep.equal([]);
    expect(dialer.channels()).to.equal(1);
  });

  it('stay open below a stream that lasts longer, and are closed after it', async () => {
    const client = dialer.client(TaskServiceService, world.grpcAddress);
    const left = new AbortController();
    let seen = 0;
    for await (const frame of client.watchTasks({}, { signal: left.signal })) {
      if (frame.keepAlive && seen === 0) {
        await client.listTasks(list); // ends, and leaves the channel to the stream
        await new Promise((resolve) => setTimeout(resolve, 3 * IDLE_MS));
        expect(dialer.channels()).to.equal(1);
        await world.as(ann, TaskServiceService).createTask({ task: Task.fromPartial({ title: 'seen' }), requestId: '' });
      }
      seen += 1;
      if (frame.task) break;
    }
    expect(seen).to.be.above(1);
    expect(dialer.channels()).to.equal(1);
    await until('it to be closed', () => dialer.channels() === 0);
  });

  it('to a server that is not there are closed as well', async () => {
    const client = dialer.client(TaskServiceService, '127.0.0.1:1');
    const refused = await client.listTasks(list, { deadlineMs: 200 }).catch((error: unknown) => error);
    expect(refused).to.be.instanceOf(Fault);
    expect(dialer.channels()).to.equal(1);
    await until('it to be closed', () => dialer.channels() === 0);
  });
});
