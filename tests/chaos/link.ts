// A connection between two parts that can be cut: a TCP proxy on loopback.
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export type Cut = 'silent' | 'refused'; // nothing comes through and nobody is told; or connections break, and new ones too
export interface Link {
  port: number; // to connect to
  cut(how: Cut): void;
  mend(): void; // what was held back by a silent cut goes on
  change(how: ((data: Buffer) => Buffer) | undefined): void; // of what goes there, piece by piece
  open(): number; // connections
  passed(): number; // bytes that came from there
  stop(): void;
}

export async function openLink(to: number): Promise<Link> {
  const sockets = new Set<Socket>();
  const held: (() => void)[] = []; // ends that are not told during a silent cut
  let state: Cut | undefined;
  let changed: ((data: Buffer) => Buffer) | undefined;
  let passed = 0;

  function forward(from: Socket, into: Socket, isThere: boolean): void {
    sockets.add(from);
    from.on('data', (data) => {
      if (!isThere) passed += data.length;
      if (into.write(isThere && changed ? changed(data) : data)) return;
      from.pause();
      into.once('drain', () => {
        if (state !== 'silent') from.resume();
      });
    });
    from.on('end', () => into.end());
    from.on('error', () => undefined); // its close follows
    from.on('close', () => {
      sockets.delete(from);
      if (state === 'silent') held.push(() => into.destroy());
      else into.destroy();
    });
    if (state === 'silent') from.pause();
  }

  const server = createServer({ allowHalfOpen: true }, (near) => {
    if (state === 'refused') return void near.on('error', () => undefined).resetAndDestroy();
    const far = connect({ port: to, host: '127.0.0.1', allowHalfOpen: true });
    for (const one of [near, far]) one.setNoDelay(true);
    forward(near, far, true);
    forward(far, near, false);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    cut(how) {
      state = how;
      for (const socket of sockets) {
        if (how === 'silent') socket.pause();
        else socket.resetAndDestroy();
      }
    },
    mend() {
      state = undefined;
      for (const tell of held.splice(0)) tell();
      for (const socket of sockets) socket.resume();
    },
    change(how) {
      changed = how;
    },
    open: () => Math.ceil(sockets.size / 2),
    passed: () => passed,
    stop() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
