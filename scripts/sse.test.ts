import { expect } from 'chai';
import { events } from './sse.ts';

async function read(...chunks: string[]): Promise<unknown[]> {
  const found: unknown[] = [];
  async function* body() {
    for (const chunk of chunks) yield new TextEncoder().encode(chunk);
  }
  for await (const event of events(body())) found.push(event);
  return found;
}

describe('server-sent events', () => {
  it('are the data between empty lines', async () => {
    expect(await read('data: {"a":1}\n\ndata: {"a":2}\n\n')).to.deep.equal([{ a: 1 }, { a: 2 }]);
  });
  it('may be cut anywhere, within a character too', async () => {
    const bytes = Buffer.from('data: {"a":"ż"}\r\n\r\ndata: 2\r\n\r\n');
    for (let at = 1; at < bytes.length; at += 1) {
      async function* body() {
        yield bytes.subarray(0, at);
        yield bytes.subarray(at);
      }
      const found: unknown[] = [];
      for await (const event of events(body())) found.push(event);
      expect(found, `cut at ${at}`).to.deep.equal([{ a: 'ż' }, 2]);
    }
  });
  it('may have several lines, comments and other fields', async () => {
    expect(await read(':keep alive\n\nevent: x\ndata:[1,\ndata: 2]\n\n')).to.deep.equal([[1, 2]]);
  });
  it('that are not complete are not told', async () => expect(await read('data: 1\n\ndata: 2\n')).to.deep.equal([1]));
});
