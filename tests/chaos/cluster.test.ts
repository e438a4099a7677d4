import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { connect } from '@nats-io/transport-node';
import { expect } from 'chai';
import { brokerAddress } from '#platform/broker-address.ts';
import { openBus } from '#platform/bus.ts';
import { openLog } from '#platform/log.ts';
import { type Stack, startStack } from '../../deploy/local/stack.ts';
import { type Api, publish, signUp } from '../e2e/rest.ts';
import { longer, patience } from '../long.ts';
import { until } from '../world.ts';
import type { Happening } from './checker.ts';
import { type Cluster, startCluster } from './cluster.ts';
import { accept, drained, judge, WORK } from './load.ts';

const PREFIX = 'chaos';
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('a broker of three nodes', function () {
  const times = longer('times that the leader of the broker is killed and cut off', 1, 10);
  this.timeout(patience(240_000));
  const folder = mkdtempSync(join(tmpdir(), 'millrace-cluster-'));
  let cluster: Cluster;
  let stack: Stack;
  let ann: Api;
  let automation: string;
  const history: Happening[] = [];
  before(async () => {
    cluster = await startCluster(folder);
    const bus = openBus({ natsUrl: cluster.url, natsPrefix: PREFIX, natsReplicas: 1 }, openLog('silent'));
    const make = async () => {
      await bus.ensureEvents();
      return new Kvm(await bus.connection()).create(`${PREFIX}_revocations`, { replicas: 1 });
    };
    await until('streams of before the setting was changed', () => make().catch(() => undefined), 30_000).finally(bus.stop);
    stack = await startStack({
      outer: { ...process.env, MILLRACE_NATS_URL: cluster.url },
      natsPrefix: PREFIX,
      settings: { MILLRACE_EDGE_RATE_SCALE: '0', MILLRACE_NATS_REPLICAS: '3' },
    });
    ann = await signUp(stack.urls.base);
    automation = await publish(ann, WORK);
  });
  after(async () => {
    await stack?.stop();
    await cluster?.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const streamOf = (name: string) => `${PREFIX}_${name}`;
  const leader = (name: string) => until(`a leader of ${name}`, () => cluster.leaderOf(streamOf(name)), 30_000);

  it('keeps every stream on three of them when the setting says so, also those that were made before', async () => {
    const connection = await connect(brokerAddress(cluster.url));
    const jsm = await jetstreamManager(connection);
    const found: Record<string, number> = {};
    await until('the streams', async () => {
      for await (const { config } of jsm.streams.list()) found[config.name] = config.num_replicas;
      return Object.keys(found).length >= 3 && Object.values(found).every((copies) => copies > 1);
    });
    expect(found).to.deep.equal({ [streamOf('EVENTS')]: 3, [streamOf('WORK')]: 3, [`KV_${PREFIX}_revocations`]: 3 });
    await connection.close();
  });

  it('loses nothing when the leader of its streams is killed and cut off under load', async () => {
    for (let time = 0; time < times; time += 1) {
      const accepted = accept(ann, automation, 200, history, time * 200);
      accepted.catch(() => undefined);
      await sleep(500);
      for (const stream of ['WORK', 'EVENTS']) {
        const killed = await leader(stream);
        await cluster.kill(killed);
        expect(await until('another leader', async () => ((now) => (now === killed ? undefined : now))(await cluster.leaderOf(streamOf(stream))), 30_000)).not.to.equal(killed); // biome-ignore format: a probe
        await cluster.start(killed);
      }
      const alone = await leader('WORK');
      cluster.cutOff(alone);
      await sleep(8000);
      cluster.mend();
      const verdict = await judge(stack, ann, await drained(ann, await accepted, history), history);
      expect(verdict).to.deep.equal({ executions: 200, lost: 0, beyond: 0 });
      await until('every event to be published', async () => ((await outboxAge()) === 0 ? true : undefined), 60_000);
    }
  });

  async function outboxAge(): Promise<number> {
    const text = await (await fetch(`${stack.urls.admin.api}/metrics`)).text();
    return Math.max(...[...text.matchAll(/^millrace_outbox_age_seconds\{[^}]*\} (\S+)/gm)].map(([, age]) => Number(age)));
  }
});
