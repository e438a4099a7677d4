import { createHmac } from 'node:crypto';
import { expect } from 'chai';
import { Hook, Hook_Preset, HookAuth, HookAuth_Algorithm, HookAuth_Encoding, HookAuth_Type } from '#gen/millrace/webhooks/v1/hook.ts';
import { newId } from '#platform/id.ts';
import { accept } from './hook.ts';
import { headersOf, keysOf, type Request, redacted } from './request.ts';
import { signatureOf, verify } from './signature.ts';

const NOW = new Date('2026-01-02T03:04:05Z');
const hookOf = (draft: Partial<Hook>): Hook =>
  accept(Hook.fromPartial({ name: 'a', automationId: newId('automation'), ...draft }), newId('user'), newId('hook'), NOW);
const authOf = (draft: Partial<Hook>): HookAuth => hookOf(draft).auth as HookAuth;
const request = (body: string | Buffer, headers: Record<string, string> = {}): Request => ({
  method: 'POST',
  headers,
  query: '',
  contentType: 'application/json',
  body: Buffer.from(body),
});

describe('signatures of hooks', () => {
  const judge = (auth: HookAuth, secret: string | string[], one: Request, id = '', now = NOW): boolean =>
    verify(auth, [secret].flat(), one, id, now).isGenuine;

  it('fit what GitHub publishes', () => {
    const auth = authOf({ preset: Hook_Preset.GITHUB });
    const secret = "It's a Secret to Everybody";
    const signature = 'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17';
    expect(judge(auth, secret, request('Hello, World!', { 'x-hub-signature-256': signature }))).to.equal(true);
    for (const wrong of [
      request('Hello, World?', { 'x-hub-signature-256': signature }),
      request('Hello, World!', { 'x-hub-signature-256': signature.replace('sha256=', '') }),
      request('Hello, World!', { 'x-hub-signature-256': signature.slice(0, -1) }),
      request('Hello, World!', { 'x-hub-signature-256': `${signature.slice(0, -1)}x` }),
      request('Hello, World!', { 'x-hub-signature-256': 'sha256=' }),
      request('Hello, World!', { 'x-hub-signature-256': '' }),
      request('Hello, World!', {}),
    ])
      expect(judge(auth, secret, wrong), JSON.stringify(wrong.headers)).to.equal(false);
    expect(judge(auth, 'another secret', request('Hello, World!', { 'x-hub-signature-256': signature }))).to.equal(false);
  });

  it('fit what Standard Webhooks publishes, with several signatures, and are over the id and the time', () => {
    const auth = authOf({});
    const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
    const [id, time] = ['msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330'];
    const then = new Date(Number(time) * 1000);
    const headers = { 'webhook-timestamp': time, 'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=' };
    const body = '{"test": 2432232314}';
    expect(judge(auth, secret, request(body, headers), id, then)).to.equal(true);
    const many = { ...headers, 'webhook-signature': `v1a,AAAA v1,AAAA ${headers['webhook-signature']}` };
    expect(judge(auth, secret, request(body, many), id, then)).to.equal(true);
    expect(judge(auth, secret, request(body, headers), 'msg_other', then), 'another id').to.equal(false);
    expect(judge(auth, secret, request(body, { ...headers, 'webhook-timestamp': '1614265331' }), id, then), 'another time').to.equal(false);
    expect(judge(auth, secret, request(`${body} `, headers), id, then), 'another body').to.equal(false);
  });

  it('are as Stripe makes them: any of several, over time and body, within the tolerance', () => {
    const auth = authOf({ preset: Hook_Preset.STRIPE });
    const secret = 'whsec_test_secret_of_stripe';
    const seconds = Math.floor(NOW.getTime() / 1000);
    const body = '{"id":"evt_1","object":"event"}';
    const sign = (at: number) => createHmac('sha256', secret).update(`${at}.${body}`).digest('hex');
    const header = (at: number, v1 = sign(at)) => ({ 'stripe-signature': `t=${at},v1=${'0'.repeat(64)},v1=${v1},v0=x` });
    for (const [at, isGenuine] of [
      [seconds, true],
      [seconds - 299, true],
      [seconds + 299, true],
      [seconds - 301, false],
      [seconds + 302, false],
    ] as const)
      expect(judge(auth, secret, request(body, header(at))), String(at - seconds)).to.equal(isGenuine);
    expect(judge(auth, secret, request(body, header(seconds, sign(seconds - 1)))), 'a time that was not signed').to.equal(false);
    expect(judge(auth, secret, request(body, { 'stripe-signature': `v1=${sign(seconds)}` })), 'no time').to.equal(false);
    const wide = authOf({ auth: { ...auth, tolerance: { seconds: 600, nanos: 0 } } });
    expect(judge(wide, secret, request(body, header(seconds - 599)))).to.equal(true);
  });

  it('may be laid out as a sender likes: Slack, SHA-512, Base64', () => {
    const seconds = `${Math.floor(NOW.getTime() / 1000)}`;
    const slack = authOf({
      auth: HookAuth.fromPartial({
        header: 'X-Slack-Signature',
        timestampHeader: 'X-Slack-Request-Timestamp',
        prefix: 'v0=',
        signed: 'v0:{timestamp}:{body}',
      }),
    });
    const v0 = createHmac('sha256', 's').update(`v0:${seconds}:token=x`).digest('hex');
    expect(judge(slack, 's', request('token=x', { 'x-slack-signature': `v0=${v0}`, 'x-slack-request-timestamp': seconds }))).to.equal(true);
    const custom = authOf({
      auth: HookAuth.fromPartial({ header: 'x-sum', algorithm: HookAuth_Algorithm.SHA512, encoding: HookAuth_Encoding.BASE64 }),
    });
    const bytes = Buffer.from([0, 255, 10, 13, 0xc3, 0xa9]);
    const sum = createHmac('sha512', 's').update(bytes).digest('base64');
    for (const text of [sum, sum.replace(/=+$/, '')]) expect(judge(custom, 's', request(bytes, { 'x-sum': text }))).to.equal(true);
    expect(judge(custom, 's', request(bytes, { 'x-sum': `${sum}!` })), 'what Base64 cannot hold').to.equal(false);
  });

  it('count with either of two secrets, and with none that is neither', () => {
    const auth = authOf({ preset: Hook_Preset.GITHUB });
    const header = (secret: string) => ({ 'x-hub-signature-256': `sha256=${signatureOf(auth, secret, Buffer.from('x')).toString('hex')}` });
    for (const secret of ['old', 'new']) expect(judge(auth, ['new', 'old'], request('x', header(secret)))).to.equal(true);
    expect(judge(auth, ['new', 'old'], request('x', header('older')))).to.equal(false);
  });

  it('are not needed with Basic, a key or nothing', () => {
    const basic = authOf({ auth: HookAuth.fromPartial({ type: HookAuth_Type.BASIC, username: 'ann' }) });
    const credentials = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
    expect(judge(basic, 's3cret', request('', { authorization: credentials('ann:s3cret') }))).to.equal(true);
    expect(judge(basic, 's3cret', request('', { authorization: credentials('ann:s3cret').replace('Basic', 'basic') }))).to.equal(true);
    for (const wrong of ['bob:s3cret', 'ann:s3cre', 'ann:s3crett', 'ann:', ':s3cret'])
      expect(judge(basic, 's3cret', request('', { authorization: credentials(wrong) })), wrong).to.equal(false);
    const key = authOf({ auth: HookAuth.fromPartial({ type: HookAuth_Type.API_KEY, header: 'Authorization', prefix: 'Bearer ' }) });
    expect(judge(key, 'k', request('', { authorization: 'Bearer k' }))).to.equal(true);
    for (const wrong of ['Bearer K', 'k', 'Bearer k ', ''])
      expect(judge(key, 'k', request('', { authorization: wrong })), wrong).to.equal(false);
    expect(judge(authOf({ auth: HookAuth.fromPartial({ type: HookAuth_Type.NONE }) }), 'k', request(''))).to.equal(true);
  });

  it('are asked for only as they can be judged', () => {
    const refused = (draft: Partial<Hook>) => () => hookOf(draft);
    const auth = (fields: Partial<HookAuth>) => ({ auth: HookAuth.fromPartial(fields) });
    for (const [what, draft] of Object.entries({
      'a body that is not signed': auth({ signed: '{timestamp}', timestampHeader: 'x-time' }),
      'a body twice': auth({ signed: '{body}{body}' }),
      'a time that is not signed': auth({ timestampHeader: 'x-time', signed: '{body}' }),
      'a time from nowhere': auth({ signed: '{timestamp}{body}' }),
      'an unknown part': auth({ signed: '{secret}{body}' }),
      'an id from the body': { ...auth({ signed: '{id}{body}' }), deliveryId: '/id' },
      'a header with underscores': auth({ header: 'x_sum' }),
      'a username with a colon': auth({ type: HookAuth_Type.BASIC, username: 'a:b' }),
    }))
      expect(refused(draft), what).to.throw().with.property('reason', 'FIELD_INVALID');
  });
});

describe('what counts once', () => {
  it('is a delivery id, and the signed bytes where the id is not among them', () => {
    const signed = Buffer.from('x');
    const github = hookOf({ preset: Hook_Preset.GITHUB });
    expect(keysOf(github, 'guid', signed).map(({ seconds }) => seconds)).to.deep.equal([30 * 24 * 3600, 300]);
    expect(keysOf(hookOf({}), 'msg_1', signed).map(({ seconds }) => seconds)).to.deep.equal([30 * 24 * 3600]);
    expect(keysOf(hookOf({}), '', signed)).to.have.length(1);
    expect(keysOf(hookOf({ auth: HookAuth.fromPartial({ type: HookAuth_Type.NONE }) }), '', undefined)).to.deep.equal([]);
    const [one, two] = ['a', 'b'].map((id) => keysOf(github, id, signed));
    expect(one?.[0]?.hash.equals(two?.[0]?.hash as Buffer)).to.equal(false);
    expect(one?.[1]?.hash.equals(two?.[1]?.hash as Buffer)).to.equal(true);
  });
});

describe('headers that are kept', () => {
  it('hold no credentials, nothing of the edge, and not too much', () => {
    const headers = headersOf(
      { 'x-github-event': 'push', 'x-envoy-original-path': '/x', te: 'trailers', 'grpc-timeout': '1S', 'a-bin': Buffer.from('x') },
      'text/plain',
    );
    expect(headers).to.deep.equal({ 'x-github-event': 'push', 'content-type': 'text/plain' });
    const shown = redacted(
      { authorization: 'Basic x', cookie: 'c', 'x-hub-signature-256': 's', 'x-own': 'k', 'x-api-key': 'k', 'x-plain': 'p' },
      'x-own',
    );
    expect(Object.entries(shown).filter(([, value]) => value !== '[redacted]')).to.deep.equal([['x-plain', 'p']]);
    expect(
      Object.keys(redacted(Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`h${n}`, 'x'.repeat(1000)])))),
    ).to.have.length.below(20);
  });
});
