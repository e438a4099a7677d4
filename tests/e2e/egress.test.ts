import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { wholeLog } from './journey.ts';
import { type Api, ended, expectStatus, type Json, publish, run, signUp } from './rest.ts';
import { theStack } from './stack.ts';

// As people write it: nothing of it knows of a sandbox.
const FETCH = `
import requests
def main(url: str):
    return requests.get(url, timeout=20).text
`;

describe('a script that reaches the network', function () {
  this.timeout(90_000);
  let stack: Stack;
  let ann: Api;
  let web: Server;
  let port: number;
  let came = 0;

  before(async function () {
    this.timeout(120_000);
    stack = await theStack();
    web = createServer((request, response) => {
      came += 1;
      response.end(`hello ${request.headers.host}`);
    });
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
    port = (web.address() as AddressInfo).port;
  });
  after(() => web?.close());
  beforeEach(async () => {
    ann = await signUp(stack.urls.base);
    came = 0;
  });

  const allow = async (...hosts: string[]): Promise<Json> => {
    const rules = hosts.map((host) => ({ host, ports: [port] }));
    return (await expectStatus(200, ann.call('PATCH', '/v1/egressPolicy?updateMask=rules', { rules }))).body;
  };
  const once = async (automation: string, host = 'localhost'): Promise<{ done: Json; log: Json[] }> => {
    const id = await run(ann, automation, { url: `http://${host}:${port}/` });
    const done = await ended(ann, id);
    return { done, log: (await wholeLog(ann, id)).entries };
  };
  const RULES = { network: 'EGRESS', retryPolicy: { maxAttempts: 1 } };

  it('connects to hosts that the workspace allows, and its log says so', async () => {
    expect((await expectStatus(200, ann.get('/v1/egressPolicy'))).body.rules ?? []).to.deep.equal([]);
    expect((await allow('localhost', '*.example.com')).rules[0]).to.deep.equal({ host: 'localhost', ports: [port] });
    const { done, log } = await once(await publish(ann, FETCH, RULES));
    expect([done.state, done.output]).to.deep.equal(['SUCCEEDED', `hello localhost:${port}`]);
    expect(log.map(({ stream, level }) => `${stream} ${level}`)).to.deep.equal(['SYSTEM INFO', 'SYSTEM INFO']);
    expect(log[0].text).to.equal(`Network: connected to localhost:${port} (127.0.0.1).`);
    expect(log[1].text).to.match(/^Network: 1 connection, 0 refused, \d+ bytes sent, \d+ received\.$/);
    expect(came).to.equal(1);
  });

  it('reads which host is not allowed, and who can allow it', async () => {
    await allow('other.example.com');
    const { done, log } = await once(await publish(ann, FETCH, RULES));
    const help = 'no rule of the workspace names it; a workspace admin can allow it in the egress policy (PATCH /v1/egressPolicy)';
    expect(done.state).to.equal('FAILED');
    expect(done.error.message).to.contain(`localhost:${port} is not allowed: ${help}`);
    expect(log[0]).to.deep.include({ stream: 'SYSTEM', level: 'WARNING', text: `Network: refused localhost:${port}: ${help}.` });
    for (const host of ['127.0.0.1', '127.1', '2130706433', '[::1]'])
      expect((await once(done.automationId, host)).done.state).to.equal('FAILED');
    expect(came).to.equal(0);
  });

  it('has no network unless its automation asks for it', async () => {
    await allow('localhost');
    const automation = await publish(ann, FETCH, { retryPolicy: { maxAttempts: 1 } });
    const { body } = await expectStatus(200, ann.get(`/v1/automations/${automation}/revisions/1`));
    expect(body.spec.network).to.equal('NONE');
    const { done, log } = await once(automation);
    expect(done.state).to.equal('FAILED');
    expect([came, log.length]).to.deep.equal([0, 0]);
  });

  it('starts by the policy as it was when the change of it was answered, also in a process that is kept', async () => {
    const automation = await publish(ann, FETCH, RULES);
    for (const hosts of [['localhost'], [], ['localhost'], ['other.example.com'], ['localhost']]) {
      await allow(...hosts);
      expect((await once(automation)).done.state, `${hosts}`).to.equal(hosts.includes('localhost') ? 'SUCCEEDED' : 'FAILED');
    }
    expect(came).to.equal(3);
  });

  it('is nobody else’s grant', async () => {
    await allow('localhost');
    const bob = await signUp(stack.urls.base);
    const automation = await publish(bob, FETCH, RULES);
    const done = await ended(bob, await run(bob, automation, { url: `http://localhost:${port}/` }));
    expect([done.state, came]).to.deep.equal(['FAILED', 0]);
  });

  it('is refused a policy that is none', async () => {
    for (const host of ['127.0.0.1', '*', 'https://a.example']) {
      const refused = await ann.call('PATCH', '/v1/egressPolicy', { rules: [{ host }] });
      expect(refused.status).to.equal(400);
      expect(JSON.stringify(refused.body)).to.contain('egressPolicy.rules.0.host');
    }
  });
});
