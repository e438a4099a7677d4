import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { expect } from 'chai';
import { until } from '../world.ts';
import { type Link, openLink } from './link.ts';

describe('a link that can be cut', () => {
  let echo: Server;
  let link: Link;
  before(async () => {
    echo = createServer((socket) => void socket.on('error', () => undefined).pipe(socket)).listen(0, '127.0.0.1');
    await once(echo, 'listening');
    link = await openLink((echo.address() as AddressInfo).port);
  });
  after(() => {
    link.stop();
    echo.close();
  });

  function dial() {
    const socket = connect(link.port, '127.0.0.1');
    const seen = { text: '', ended: false };
    socket.on('data', (data) => (seen.text += String(data)));
    socket.on('error', () => undefined);
    socket.on('close', () => (seen.ended = true));
    return { socket, seen };
  }

  it('forwards, holds back during a silent cut, and goes on', async () => {
    const { socket, seen } = dial();
    socket.write('a');
    await until('the echo', () => seen.text === 'a');
    link.cut('silent');
    socket.write('b');
    const late = dial(); // nobody refuses it
    await once(late.socket, 'connect');
    late.socket.write('c');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect([seen.text, seen.ended, late.seen.text, late.seen.ended]).to.deep.equal(['a', false, '', false]);
    link.mend();
    await until('both echoes', () => seen.text === 'ab' && late.seen.text === 'c');
    for (const one of [socket, late.socket]) one.end();
    await until('the end', () => seen.ended && late.seen.ended);
  });

  it('breaks connections and refuses new ones until it is mended', async () => {
    const { socket, seen } = dial();
    socket.write('a');
    await until('the echo', () => seen.text === 'a');
    link.cut('refused');
    await until('the end', () => seen.ended);
    const late = dial();
    await until('the refusal', () => late.seen.ended);
    link.mend();
    const again = dial();
    again.socket.write('d');
    await until('the echo', () => again.seen.text === 'd');
    again.socket.destroy();
  });
});
