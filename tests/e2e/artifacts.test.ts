import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { until } from '../world.ts';
import { type Api, ended, expectStatus, frames, type Json, publish, run, signUp } from './rest.ts';
import { theStack } from './stack.ts';

const MIB = 1024 * 1024;
const exec = promisify(execFile);
const sha = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');

// A page that a browser would run, if it were let.
const PAGE = '<script>document.title = "run"</script>';
const KEEPS = `
import millrace
def main(size: int):
    millrace.artifact('Übersicht "1".html', ${JSON.stringify(PAGE)}.encode())
    millrace.artifact('large', (bytes([n % 251]) * (1 << 20) for n in range(size)), content_type='application/x-large')
`;
// Takes about two seconds to send, whatever is killed meanwhile.
const SLOW = `
import millrace, time
def parts():
    for n in range(40):
        if n == 10:
            print('sending', flush=True)
        yield bytes([n]) * 100_000
        time.sleep(0.05)
def main():
    return millrace.artifact('slow', parts())['sha256']
`;
const slow = Buffer.concat(Array.from({ length: 40 }, (_, n) => Buffer.alloc(100_000, n)));
const large = (mib: number): Buffer => Buffer.concat(Array.from({ length: mib }, (_, n) => Buffer.alloc(MIB, n % 251)));

describe('artifacts, as a person gets them', function () {
  this.timeout(120_000);
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(180_000);
    stack = await theStack();
    ann = await signUp(stack.urls.base);
  });

  const listed = async (id: string, api = ann): Promise<Json[]> =>
    (await expectStatus(200, api.get(`/v1/executions/${id}/artifacts`))).body.artifacts;
  const download = (id: string, headers: Record<string, string> = {}, query = ''): Promise<Response> =>
    fetch(`${stack.urls.base}/v1/artifacts/${id}:download${query}`, { headers: { authorization: `Bearer ${ann.token}`, ...headers } });
  const bytes = async (answer: Response): Promise<Buffer> => Buffer.from(await answer.arrayBuffer());

  it('are listed, downloaded whole, as attachments that no browser runs, and deleted', async () => {
    const id = await run(ann, await publish(ann, KEEPS), { size: 1 });
    expect((await ended(ann, id)).state).to.equal('SUCCEEDED');
    const [page] = await listed(id);
    expect(page).to.include({ name: 'Übersicht "1".html', contentType: 'text/html', attempt: 1, sizeBytes: PAGE.length, executionId: id });
    expect(page.sha256).to.equal(sha(Buffer.from(PAGE)));
    expect((await ann.get(`/v1/artifacts/${page.id}`)).body).to.deep.equal(page);
    const answer = await download(page.id);
    expect(answer.status).to.equal(200);
    expect(await answer.text()).to.equal(PAGE);
    const headers = Object.fromEntries(answer.headers);
    expect(headers).to.include({
      'content-type': 'text/html',
      'content-disposition': `attachment; filename="_bersicht _1_.html"; filename*=UTF-8''%C3%9Cbersicht%20%221%22.html`,
      'x-content-type-options': 'nosniff',
      'accept-ranges': 'bytes',
      etag: `"${page.sha256}"`,
      'repr-digest': `sha-256=:${Buffer.from(page.sha256, 'hex').toString('base64')}:`,
      'cache-control': 'no-store',
    });
    expect(headers['content-security-policy']).to.include("default-src 'none'");
    const bob = await signUp(stack.urls.base);
    await expectStatus(404, bob.get(`/v1/artifacts/${page.id}`));
    await expectStatus(404, bob.get(`/v1/artifacts/${page.id}:download`));
    await expectStatus(404, bob.get(`/v1/executions/${id}/artifacts`));
    await expectStatus(404, bob.call('DELETE', `/v1/artifacts/${page.id}`));
    await expectStatus(204, ann.call('DELETE', `/v1/artifacts/${page.id}`));
    await expectStatus(404, ann.get(`/v1/artifacts/${page.id}:download`));
    expect((await listed(id)).map(({ name }) => name)).to.deep.equal(['large']);
  });

  it('are large, and their download is resumed', async () => {
    const id = await run(ann, await publish(ann, KEEPS), { size: 18 });
    expect((await ended(ann, id)).state).to.equal('SUCCEEDED');
    const [, { id: key, sha256, sizeBytes }] = await listed(id);
    const wanted = large(18);
    expect([sizeBytes, sha256]).to.deep.equal([wanted.length, sha(wanted)]);
    const whole = await download(key);
    expect(whole.headers.get('content-type')).to.equal('application/x-large');
    expect(sha(await bytes(whole))).to.equal(sha256);
    const from = 5 * MIB + 7;
    const rest = await download(key, { range: `bytes=${from}-`, 'if-range': `"${sha256}"` });
    expect(rest.status).to.equal(206);
    expect(rest.headers.get('content-range')).to.equal(`bytes ${from}-${wanted.length - 1}/${wanted.length}`);
    expect((await bytes(rest)).equals(wanted.subarray(from))).to.equal(true);
    const other = await download(key, { range: `bytes=${from}-`, 'if-range': '"another"' });
    expect([other.status, (await bytes(other)).length]).to.deep.equal([200, wanted.length]);
    const part = await download(key, {}, `?offset=${MIB - 1}&length=2`);
    expect([part.status, [...(await bytes(part))]]).to.deep.equal([206, [0, 1]]);
    const behind = await download(key, { range: `bytes=${wanted.length}-` });
    expect([behind.status, ((await behind.json()) as Json).details[0].reason]).to.deep.equal([400, 'RANGE_INVALID']);
  });

  it('are what docs/ARTIFACTS.md shows', async () => {
    const text = readFileSync('docs/ARTIFACTS.md', 'utf8');
    const [source = ''] = [...text.matchAll(/^```python\n([\s\S]*?)^```$/gm)].map(([, block]) => block);
    const id = await run(ann, await publish(ann, source));
    expect((await ended(ann, id)).state).to.equal('SUCCEEDED');
    const blocks = [...text.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block = '']) => block);
    const script = ['set -euo pipefail', ...blocks.map((block, index) => `echo "== ${index}"\n${block}`)].join('\n');
    const env = { ...process.env, BASE: stack.urls.base, HOST: stack.urls.host, TOKEN: ann.token, RUN: id };
    const { stdout } = await exec('bash', ['-c', script], { env, timeout: 60_000 }).catch((error) => {
      throw new Error(`the examples ended with ${error.code}:\n${error.stdout}\n${error.stderr}`);
    });
    for (const word of ['"summary.json"', '"contentType": "text/csv"', 'name,count\nAnn,3\n', 'count', '204'])
      expect(stdout, word).to.include(word);
    expect((await listed(id)).map(({ name }) => name)).to.deep.equal(['summary.json', 'dump', 'lines']);
  });

  for (const [part, attempts] of [
    ['api', 1],
    ['dispatcher', 1],
    ['automation', 2],
  ] as const) {
    it(`are whole although ${part} was killed in the middle of an upload`, async () => {
      const timeouts = { startToClose: '60s' };
      const id = await run(ann, await publish(ann, SLOW, { timeouts }));
      const seen = new AbortController();
      for await (const { entry } of frames(ann, `/v1/executions/${id}/logs?follow=true`, { signal: seen.signal })) {
        if (entry?.text === 'sending') break;
      }
      seen.abort();
      await stack.kill(part);
      await stack.ready(part);
      const done = await until('the execution to end', async () => {
        const found = await ann.get(`/v1/executions/${id}`).catch(() => undefined);
        return found?.status === 200 && found.body.endTime ? found.body : undefined;
      }, 60_000); // biome-ignore format: a probe
      const { body: told } = await ann.get(`/v1/executions/${id}/attempts`);
      expect([done.state, done.output, done.attemptCount], JSON.stringify(told)).to.deep.equal(['SUCCEEDED', sha(slow), attempts]);
      const all = await listed(id);
      expect(all.map(({ name, attempt, sha256 }) => [name, attempt, sha256])).to.deep.equal([['slow', attempts, sha(slow)]]);
      expect(sha(await bytes(await download(all[0].id)))).to.equal(sha(slow));
    });
  }
});
