// A broker of three nodes on loopback. Its nodes reach each other over links, so that one can be cut off from the others.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { brokerAddress } from '#platform/broker-address.ts';
import { readChoices } from '../../deploy/local/environment.ts';
import { freePort } from '../../deploy/local/ports.ts';
import { brokerReady } from '../../deploy/local/ready.ts';
import { until } from '../world.ts';
import { type Link, openLink } from './link.ts';

export interface Cluster {
  url: string;
  leaderOf(stream: string): Promise<string | undefined>; // a node's name, as the others tell; undefined while they elect one
  kill(node: string): Promise<void>;
  start(node: string): Promise<void>;
  cutOff(node: string): void; // from the other nodes; clients still reach it
  mend(): void;
  stop(): Promise<void>;
}

const NODES = ['a', 'b', 'c'] as const;

export async function startCluster(folder: string): Promise<Cluster> {
  const nodes = new Map<string, { client: number; route: number; child?: ChildProcess }>();
  for (const name of NODES) nodes.set(name, { client: await freePort(), route: await freePort() });
  const links: { ends: string[]; from: string; link: Link }[] = [];
  for (const from of NODES)
    for (const to of NODES) if (from !== to) links.push({ ends: [from, to], from, link: await openLink(nodes.get(to)?.route ?? 0) });
  const url = [...nodes.values()].map(({ client }) => `nats://127.0.0.1:${client}`).join(',');

  const configuration = (name: string, client: number, route: number): string => `
listen: "127.0.0.1:${client}"
server_name: "${name}"
max_payload: 4MB
jetstream { store_dir: ${JSON.stringify(join(folder, name))}, max_memory_store: 64MB, max_file_store: 1GB }
cluster {
  name: "chaos"
  listen: "127.0.0.1:${route}"
  no_advertise: true
  pool_size: -1
  routes: [${links
    .filter(({ from }) => from === name)
    .map(({ link }) => `"nats://127.0.0.1:${link.port}"`)
    .join(', ')}]
}
`;
  const ready = (name: string) =>
    until(`node ${name}`, () => brokerReady(`nats://127.0.0.1:${nodes.get(name)?.client}`).catch(() => undefined), 20_000);

  const cluster: Cluster = {
    url,
    async leaderOf(stream) {
      const connection = await connect({ ...brokerAddress(url), timeout: 2000 });
      try {
        const jsm = await jetstreamManager(connection, { checkAPI: false, timeout: 2000 });
        return (await jsm.streams.info(stream)).cluster?.leader;
      } catch {
        return undefined;
      } finally {
        await connection.close();
      }
    },
    async kill(name) {
      const { child } = nodes.get(name) ?? {};
      if (!child || child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
    async start(name) {
      const node = nodes.get(name);
      if (!node) throw new Error(`there is no node ${name}`);
      const file = join(folder, `${name}.conf`);
      writeFileSync(file, configuration(name, node.client, node.route));
      node.child = spawn(readChoices().natsServer, ['-c', file, '-l', join(folder, `${name}.log`)], { stdio: 'ignore' });
      await ready(name);
    },
    cutOff(name) {
      for (const { ends, link } of links) if (ends.includes(name)) link.cut('silent');
    },
    mend() {
      for (const { link } of links) link.mend();
    },
    async stop() {
      for (const name of NODES) await cluster.kill(name);
      for (const { link } of links) link.stop();
    },
  };
  mkdirSync(folder, { recursive: true });
  try {
    await Promise.all(NODES.map((name) => cluster.start(name)));
  } catch (error) {
    await cluster.stop();
    throw error;
  }
  return cluster;
}
