import { createHash } from 'node:crypto';
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Stack, startStack } from '../../deploy/local/stack.ts';
import { type Objects, startObjects } from '../objects.ts';
import { type Api, ended, expectStatus, publish, run, signUp } from './rest.ts';

const MIB = 1024 * 1024;
const KEEPS = `
import millrace
def main():
    return millrace.artifact('large', (bytes([n]) * (1 << 20) for n in range(10)))['sha256']
`;
const content = Buffer.concat(Array.from({ length: 10 }, (_, n) => Buffer.alloc(MIB, n)));
const sha = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');

describe('a stack that keeps files in an object store', function () {
  this.timeout(120_000);
  let objects: Objects;
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(180_000);
    objects = await startObjects();
    stack = await startStack({ settings: { MILLRACE_LOG_LEVEL: 'info', ...objects.env } });
    ann = await signUp(stack.urls.base);
  });
  after(async () => {
    await stack?.stop();
    await objects?.stop();
  });

  const kept = async () => (await objects.names()).filter((name) => name.startsWith('some/where/kept/'));

  it('takes them from scripts, sends them whole and in part, and forgets them', async () => {
    const id = await run(ann, await publish(ann, KEEPS));
    const { state, output } = await ended(ann, id);
    expect([state, output]).to.deep.equal(['SUCCEEDED', sha(content)]);
    const [found] = (await expectStatus(200, ann.get(`/v1/executions/${id}/artifacts`))).body.artifacts;
    expect(await kept()).to.deep.equal([`some/where/kept/${found.id.slice(-2)}/${found.id}`]);
    expect(globSync(join(stack.layout.data, 'blobs/staged/*'))).to.deep.equal([]);

    const download = (headers: Record<string, string> = {}) =>
      fetch(`${stack.urls.base}/v1/artifacts/${found.id}:download`, { headers: { authorization: `Bearer ${ann.token}`, ...headers } });
    const bytes = async (answer: Response) => Buffer.from(await answer.arrayBuffer());
    expect(sha(await bytes(await download()))).to.equal(sha(content));
    const from = 5 * MIB + 7;
    const rest = await download({ range: `bytes=${from}-`, 'if-range': `"${found.sha256}"` });
    expect([rest.status, rest.headers.get('content-range')]).to.deep.equal([206, `bytes ${from}-${content.length - 1}/${content.length}`]);
    expect((await bytes(rest)).equals(content.subarray(from))).to.equal(true);

    objects.link.cut('refused');
    expect((await download()).status).to.equal(503);
    objects.link.mend();
    expect((await bytes(await download({ range: 'bytes=-1' }))).equals(content.subarray(-1))).to.equal(true);
    await expectStatus(204, ann.call('DELETE', `/v1/artifacts/${found.id}`));
    expect(await kept()).to.deep.equal([]);
  });
});
