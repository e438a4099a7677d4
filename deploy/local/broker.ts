// NATS with JetStream, for loopback only, and for whoever has the password: it stands in the configuration, which only its owner may read.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Outer, plainEnvironment } from './environment.ts';
import type { Part } from './part.ts';
import { brokerBroken, brokerReady } from './ready.ts';
import { needRoom } from './room.ts';

interface Options {
  command: string;
  folder: string; // <data>/nats; must be named, NATS would take a temporary one
  config: string;
  port: number;
  adminPort: number; // NATS tells of itself there
  password: string;
  outer: Outer;
}

const USER = 'millrace';

export const brokerUrl = (port: number, password: string): string => `nats://${USER}:${encodeURIComponent(password)}@127.0.0.1:${port}`;

const configuration = ({ port, adminPort, folder, password }: Options): string => `# Made by the launcher at each start.
listen: "127.0.0.1:${port}"
http: "127.0.0.1:${adminPort}"
server_name: "millrace"
max_payload: 4MB
authorization {
  user: "${USER}"
  password: ${JSON.stringify(password)}
}
jetstream {
  store_dir: ${JSON.stringify(folder)}
  max_memory_store: 256MB
  max_file_store: 8GB
}
`;

export function brokerPart(options: Options): Part {
  const { command, folder, config, port, adminPort, password, outer } = options;
  return {
    name: 'broker',
    what: 'the broker (NATS)',
    command,
    args: ['-c', config],
    env: plainEnvironment(outer),
    address: `127.0.0.1:${port}`,
    async prepare() {
      needRoom(dirname(folder), 'the broker');
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      writeFileSync(config, configuration(options), { mode: 0o600 });
    },
    ready: async () => ({ version: `NATS ${await brokerReady(brokerUrl(port, password))}` }),
    broken: () => brokerBroken(adminPort),
    stopSeconds: 15,
  };
}
