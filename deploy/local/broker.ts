// NATS with JetStream, for loopback only.
import { mkdirSync, writeFileSync } from 'node:fs';
import { type Outer, plainEnvironment } from './environment.ts';
import type { Part } from './part.ts';
import { brokerReady } from './ready.ts';

interface Options {
  command: string;
  folder: string; // <data>/nats; must be named, NATS would take a temporary one
  config: string;
  port: number;
  outer: Outer;
}

const configuration = (port: number, folder: string): string => `# Made by the launcher at each start.
listen: "127.0.0.1:${port}"
server_name: "millrace"
max_payload: 4MB
jetstream {
  store_dir: ${JSON.stringify(folder)}
  max_memory_store: 256MB
  max_file_store: 8GB
}
`;

export function brokerPart({ command, folder, config, port, outer }: Options): Part {
  return {
    name: 'broker',
    what: 'the broker (NATS)',
    command,
    args: ['-c', config],
    env: plainEnvironment(outer),
    address: `127.0.0.1:${port}`,
    async prepare() {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      writeFileSync(config, configuration(port, folder), { mode: 0o600 });
    },
    ready: async () => ({ version: `NATS ${await brokerReady(`nats://127.0.0.1:${port}`)}` }),
    startSeconds: 30,
    stopSeconds: 15,
  };
}
