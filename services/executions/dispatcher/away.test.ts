import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { expect } from 'chai';
import { toBytes } from '#platform/id.ts';
import { until } from '../../../tests/world.ts';
import { breaches } from '../engine/fixture.test.ts';
import { type Lab, runningOf, startLab, stateOf } from './fixture.test.ts';

interface Wire {
  port: number;
  cut(): void; // breaks what is open and refuses what comes
  mend(): void;
  stop(): void;
}

// The way to a server, which can be cut.
async function wireTo(url: URL, isCut = false): Promise<Wire> {
  const { hostname } = url;
  const port = Number(url.port);
  const open = new Set<Socket>();
  let refuses = isCut;
  const server = createServer((near) => {
    if (refuses) return near.destroy();
    const far = connect(port, hostname);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => open.delete(one) && other.destroy());
      one.pipe(other);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = () => {
    refuses = true;
    for (const socket of open) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut,
    mend: () => {
      refuses = false;
    },
    stop() {
      cut();
      server.close();
    },
  };
}

const TALKER = `
import time
def main():
    for i in range(250):
        print(f"line {i}")
        time.sleep(0.02)
`;

describe('a dispatcher whose database or broker is away', function () {
  this.timeout(60_000);
  let lab: Lab;
  const wires: Wire[] = [];
  before(async () => {
    lab = await startLab({ targets: ['executions'] });
    await lab.runner();
  });
  after(async () => {
    await lab.stop();
    for (const wire of wires) wire.stop();
  });

  async function cable(address: string, isCut = false): Promise<{ wire: Wire; url: string }> {
    const url = new URL(address);
    const wire = await wireTo(url, isCut);
    wires.push(wire);
    url.hostname = '127.0.0.1';
    url.port = `${wire.port}`;
    url.search = ''; // a socket would pass it by
    return { wire, url: url.href };
  }

  it('keeps its sessions and what they bring while the database is away for longer than every lease', async () => {
    const { wire, url } = await cable(lab.world.env.MILLRACE_DATABASE_URL ?? '');
    const dispatcher = await lab.dispatcher({ MILLRACE_DATABASE_URL: url });
    const id = await lab.start(await lab.publish({ source: TALKER }));
    const lineCount = async () => (await runningOf(lab.world, id))?.line_count ?? 0;
    await until('some lines', async () => (await lineCount()) > 10);
    wire.cut();
    await until('every lease to be over', async () => {
      const db = lab.world.db('executions');
      const over = await db('servers').where('lease_until', '<', db.raw('NOW(6) - INTERVAL 1 SECOND'));
      return over.length === 1;
    });
    const before = await lineCount();
    wire.mend();
    const done = await lab.ended(id, 30_000);
    expect(stateOf(done)).to.equal('SUCCEEDED');
    expect(done.attemptCount).to.equal(1);
    expect(before).to.be.below(250);
    const lines = (await lab.logs(id)).flatMap(({ entry }) => (entry ? [entry.text] : []));
    expect(lines).to.deep.equal(Array.from({ length: 250 }, (_, index) => `line ${index}`));
    const row = await lab.world
      .db('executions')('attempts')
      .where({ execution: toBytes('execution', id) })
      .first();
    expect(row.log_sha256).to.equal(
      createHash('sha256')
        .update(lines.map((line) => `${line}\n`).join(''))
        .digest('hex'),
    );
    expect(await breaches(lab.world.db('executions'))).to.deep.equal({ misplaced: 0, slots: 0 });
    await dispatcher.stop();
  });

  it('waits for a broker that is not there yet, says so, and works when it comes', async () => {
    const { wire, url } = await cable(lab.world.env.MILLRACE_NATS_URL ?? '', true);
    const dispatcher = await lab.dispatcher({ MILLRACE_NATS_URL: url });
    await until('it to say so', () => dispatcher.output().includes('waiting for the broker'));
    const id = await lab.start(await lab.publish({ source: 'def main():\n    return 7\n' }));
    expect(dispatcher.child.exitCode).to.equal(null);
    wire.mend();
    expect((await lab.ended(id)).output).to.equal(7);
    wire.cut();
    const second = await lab.start(await lab.publish({ source: 'def main():\n    return 8\n' }));
    wire.mend();
    expect((await lab.ended(second)).output).to.equal(8);
    await dispatcher.stop();
  });

  it('waits for a database that is not there yet', async () => {
    const { wire, url } = await cable(lab.world.env.MILLRACE_DATABASE_URL ?? '', true);
    const starting = lab.dispatcher({ MILLRACE_DATABASE_URL: url });
    const id = await lab.start(await lab.publish({ source: 'def main():\n    return 9\n' }));
    wire.mend();
    const dispatcher = await starting;
    expect((await lab.ended(id)).output).to.equal(9);
    await dispatcher.stop();
  });
});
