// Webhooks as their senders call them: bytes through the edge, nothing of our clients.
import { execFile } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { until } from '../world.ts';
import { GREETING } from './journey.ts';
import { type Api, ended, expectStatus, type Json, publish, run, signUp } from './rest.ts';
import { theStack } from './stack.ts';

const ECHO = 'def main(**event):\n    return event\n';
const SLEEP = 'import time\ndef main(seconds: float):\n    time.sleep(seconds)\n    return {"slept": seconds}\n';

describe('a webhook', function () {
  this.timeout(60_000);
  let stack: Stack;
  let ann: Api;
  let echo: string;
  before(async function () {
    this.timeout(120_000);
    stack = await theStack();
    ann = await signUp(stack.urls.base);
    echo = await publish(ann, ECHO);
  });

  const make = async (fields: Record<string, unknown>): Promise<Json> =>
    (await expectStatus(201, ann.post('/v1/hooks', { name: 'a hook', automationId: echo, ...fields }))).body;
  // Exactly these bytes, as a sender's own program writes them.
  const post = (path: string, body: string | Buffer, headers: Record<string, string> = {}): Promise<{ status: number; body: Json }> =>
    new Promise((resolve, reject) => {
      const [host, port] = stack.urls.host.split(':');
      const bytes = Buffer.from(body);
      const type = { 'content-type': 'application/json', 'content-length': String(bytes.length) };
      const sent = httpRequest({ host, port, path, method: 'POST', headers: { ...type, ...headers } }, async (response) => {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk);
        const text = Buffer.concat(chunks).toString();
        resolve({ status: response.statusCode ?? 0, body: text === '' ? undefined : JSON.parse(text) });
      });
      sent.on('error', reject);
      sent.end(bytes);
    });
  const hex = (secret: string, body: string | Buffer) => createHmac('sha256', secret).update(body).digest('hex');
  const reasonOf = (body: Json): string => body.details.find((one: Json) => one['@type'].endsWith('ErrorInfo')).reason;

  it('of GitHub starts one execution for a delivery, byte for byte', async () => {
    const hook = await make({
      preset: 'GITHUB',
      filter: 'headers["x-github-event"] == "push"',
      input: '{"ref": body.ref, "who": body.who, "query": query.a}',
    });
    expect(hook.path).to.equal(`/hooks/${hook.id}`);
    const body = '\n {"ref" :\t"refs/heads/main",   "who":"Zoë 🥛","\\u00e9": 1.0}\r\n\n';
    const headers = { 'x-github-event': 'push', 'x-github-delivery': 'd-1', 'x-hub-signature-256': `sha256=${hex(hook.secret, body)}` };
    const first = await post(`${hook.path}?a=b%20c&unknown.parameter=1`, body, headers);
    expect(first.status).to.equal(202);
    expect((await ended(ann, first.body.executionId)).output).to.deep.equal({ ref: 'refs/heads/main', who: 'Zoë 🥛', query: 'b c' });
    const answers = await Promise.all(Array.from({ length: 5 }, () => post(hook.path, body, headers)));
    for (const answer of answers) expect(answer.body.executionId, JSON.stringify(answer)).to.equal(first.body.executionId);
    const listed = await expectStatus(200, ann.get(`/v1/hooks/${hook.id}/deliveries`));
    expect(listed.body.deliveries).to.have.length(1);
    expect(listed.body.deliveries[0]).to.include({ state: 'DELIVERED', senderDeliveryId: 'd-1', duplicateCount: 5 });
    const ping = 'zen=1';
    const ignored = await post(hook.path, ping, {
      ...headers,
      'x-github-delivery': 'd-2',
      'x-github-event': 'ping',
      'x-hub-signature-256': `sha256=${hex(hook.secret, ping)}`,
    });
    expect([ignored.status, ignored.body.state]).to.deep.equal([200, 'IGNORED']);
  });

  it('refuses what was changed on the way by a byte, and what is not there', async () => {
    const hook = await make({ preset: 'GITHUB' });
    const body = '{"a": 1}';
    const headers = { 'x-github-delivery': 'd', 'x-hub-signature-256': `sha256=${hex(hook.secret, body)}` };
    for (const changed of ['{"a":1}', '{"a": 1} ', '{"a": 2}', '']) {
      const refused = await post(hook.path, changed, headers);
      expect([refused.status, reasonOf(refused.body)], changed).to.deep.equal([401, 'SIGNATURE_INVALID']);
    }
    const unknown = await post('/hooks/hok_00000000000000000000000000', body, headers);
    expect([unknown.status, reasonOf(unknown.body)]).to.deep.equal([404, 'RESOURCE_NOT_FOUND']);
    const large = await post(hook.path, JSON.stringify({ a: 'x'.repeat(1024 * 1024) }), headers);
    expect([large.status, reasonOf(large.body)]).to.deep.equal([400, 'REQUEST_TOO_LARGE']);
    expect(await post(hook.path, body, headers)).to.deep.include({ status: 202 });
  });

  it('of Stripe takes the secret that Stripe made, and counts an event once', async () => {
    const secret = 'whsec_made_by_stripe_0123456789';
    const hook = await make({ preset: 'STRIPE', secret, input: '{"event": body.type, "amount": body.data.object.amount}' });
    expect(hook.secret).to.equal(secret);
    const body = JSON.stringify({ id: 'evt_1', type: 'invoice.paid', data: { object: { amount: 100 } } }, null, 2);
    const sign = (at: number) => ({ 'stripe-signature': `t=${at},v1=${hex(secret, `${at}.${body}`)}` });
    const now = Math.floor(Date.now() / 1000);
    const first = await post(hook.path, body, sign(now));
    const again = await post(hook.path, body, sign(now + 1)); // as Stripe repeats: signed anew
    expect([first.status, again.status, again.body.executionId]).to.deep.equal([202, 202, first.body.executionId]);
    expect((await post(hook.path, body, sign(now - 400))).status).to.equal(401);
    expect((await ended(ann, first.body.executionId)).output).to.deep.equal({ event: 'invoice.paid', amount: 100 });
  });

  it('answers with the result when it is synchronous, to Basic and to a key', async () => {
    const basic = await make({ synchronous: true, auth: { type: 'BASIC', username: 'erp' } });
    const authorization = `Basic ${Buffer.from(`erp:${basic.secret}`).toString('base64')}`;
    const done = await post(basic.path, '{"n": 1}', { authorization });
    expect(done.status).to.equal(200);
    expect(done.body).to.deep.include({ state: 'SUCCEEDED', output: { n: 1 } });
    expect((await post(basic.path, '{"n": 1}', { authorization: `${authorization}x` })).status).to.equal(401);
    const slow = await publish(ann, SLEEP);
    const key = await make({ automationId: slow, synchronous: true, wait: '0.5s', auth: { type: 'API_KEY', header: 'X-Key' } });
    const late = await post(key.path, '{"seconds": 5}', { 'x-key': key.secret });
    expect([late.status, late.body.state]).to.deep.equal([202, 'DELIVERED']);
    const unfit = await post(key.path, '{"minutes": 5}', { 'x-key': key.secret });
    expect([unfit.status, reasonOf(unfit.body)]).to.deep.equal([400, 'INPUT_INVALID']);
  });

  it('is delivered again by a person, after the mapping was put right', async () => {
    const hook = await make({ auth: { type: 'NONE' }, input: '{"who": body.name}' });
    const broken = await post(hook.path, '{"user": {"name": "ann"}}');
    expect([broken.status, broken.body.state]).to.deep.equal([202, 'FAILED']);
    await expectStatus(200, ann.call('PATCH', `/v1/hooks/${hook.id}`, { input: '{"who": body.user.name}' }));
    const path = `/v1/hooks/${hook.id}/deliveries/${broken.body.deliveryId}`;
    const seen = await expectStatus(200, ann.get(path));
    expect(seen.body).to.include({ state: 'FAILED', body: '{"user": {"name": "ann"}}' });
    const again = await expectStatus(200, ann.post(`${path}:redeliver`));
    expect((await ended(ann, again.body.executionId)).output).to.deep.equal({ who: 'ann' });
  });

  it('tells a receiver of its own that an execution has ended, signed', async () => {
    const got: { headers: IncomingHttpHeaders; text: string }[] = [];
    const receiver = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      got.push({ headers: request.headers, text: Buffer.concat(chunks).toString() });
      response.end();
    });
    await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`;
    const made = await expectStatus(201, ann.post('/v1/eventSubscriptions', { name: 'ends', url, types: ['execution.ended'] }));
    expect(made.headers.get('location')).to.equal(`/v1/eventSubscriptions/${made.body.id}`);
    const done = await ended(ann, await run(ann, echo, { n: 7 }));
    const [first] = await until('the event', () => (got.length > 0 ? got : undefined));
    const { headers, text } = first as (typeof got)[0];
    const key = Buffer.from(made.body.secret.replace('whsec_', ''), 'base64');
    const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${text}`;
    expect(headers['webhook-signature']).to.equal(`v1,${createHmac('sha256', key).update(signed).digest('base64')}`);
    expect(JSON.parse(text)).to.include({ type: 'execution.ended', subject: done.id });
    expect(JSON.parse(text).data.execution).to.deep.include({ state: 'SUCCEEDED', output: { n: 7 } });
    const path = `/v1/eventSubscriptions/${made.body.id}`;
    await until('the log', async () => (await ann.get(`${path}/deliveries?states=DELIVERED`)).body.deliveries.length === 1);
    expect((await ann.call('DELETE', path)).status).to.equal(204);
    receiver.close();
  });

  it('is what docs/WEBHOOKS.md shows', async () => {
    const blocks = [...readFileSync('docs/WEBHOOKS.md', 'utf8').matchAll(/^```sh\n(.*?)^```/gms)].map(([, text]) => text);
    const env = { ...process.env, BASE: stack.urls.base, HOST: stack.urls.host, TOKEN: ann.token, ID: await publish(ann, GREETING) };
    const { stdout } = await promisify(execFile)('bash', ['-c', `set -eo pipefail\n${blocks.join('\n')}`], { env });
    const shown = stdout.trim().split('\n');
    expect(shown.slice(1, 5)).to.deep.equal([
      '{"name":"pushes","automationId":"'.concat(env.ID, '"}'),
      '{"state":"DELIVERED"}',
      '{"state":"DELIVERED"}',
      '{"state":"DELIVERED","senderDeliveryId":"7c9e6679","duplicateCount":1}',
    ]);
    expect(shown[5]).to.equal('{"state":"SUCCEEDED","output":{"greeted":"Bob","times":1}}');
    expect(shown[7]).to.include('"state":"FAILED","error":"MAPPING_FAILED: the mapping fails: ').and.include('Cy');
    expect(shown[9]).to.match(/^\{"state":"DELIVERED","redeliveryOf":"dlv_/);
    expect(shown.slice(10)).to.deep.equal([
      '{"previousSecretExpireTime":true,"shown":true}',
      '{"disabled":true}',
      '["execution.ended","task.completed"]',
      '{"dead":0}',
      '204',
    ]);
  });
});
