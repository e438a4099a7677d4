import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { type Api, call, expectStatus, frames, signUp } from './rest.ts';
import { theStack } from './stack.ts';

const info = (body: { details: { '@type': string; reason: string }[] }) => body.details.find((one) => one['@type'].endsWith('ErrorInfo'));

describe('a newcomer with curl', () => {
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(120_000);
    stack = await theStack();
    ann = await signUp(stack.urls.base);
  });

  it('asks whether the installation is well', async () => {
    const { status, body } = await call(stack.urls.base, 'GET', '/health');
    expect(status).to.equal(200);
    expect(body).to.deep.equal({
      status: 'SERVING',
      areas: {
        identity: 'SERVING',
        tasks: 'SERVING',
        automations: 'SERVING',
        executions: 'SERVING',
        schedules: 'SERVING',
        webhooks: 'SERVING',
        runner: 'SERVING',
      },
    });
  });

  it('sees who is signed in, refreshes, and is out after ending the session', async () => {
    const bob = await signUp(stack.urls.base);
    const me = await expectStatus(200, bob.get('/v1/me'));
    expect(me.body.user.username).to.equal(bob.username);
    expect(me.body.scopes).to.include('tasks.write').and.not.include('platform.manage');
    const refreshed = await call(
      stack.urls.base,
      'POST',
      '/oauth2/token',
      new URLSearchParams({ grant_type: 'refresh_token', refresh_token: bob.refreshToken }),
    );
    expect(refreshed.status).to.equal(200);
    expect(refreshed.body).to.include({ token_type: 'bearer', expires_in: 900 });
    expect(refreshed.body.refresh_token).not.to.equal(bob.refreshToken);
    await expectStatus([200, 204], bob.post('/v1/sessions:end'));
    for (let tries = 0; (await bob.get('/v1/tasks')).status !== 401; tries += 1) {
      if (tries === 40) throw new Error('the token still counts');
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  });

  it('gets the errors of RFC 6749 from the token endpoint', async () => {
    const wrong = await call(
      stack.urls.base,
      'POST',
      '/oauth2/token',
      new URLSearchParams({ grant_type: 'password', username: ann.username, password: 'wrong-password' }),
    );
    expect(wrong.status).to.be.oneOf([400, 401]);
    expect(wrong.body.error).to.equal('invalid_grant');
    const odd = await call(stack.urls.base, 'POST', '/oauth2/token', new URLSearchParams({ grant_type: 'magic' }));
    expect([odd.status, odd.body.error]).to.deep.equal([400, 'unsupported_grant_type']);
  });

  it('makes, lists, changes and deletes a task', async () => {
    const made = await expectStatus(201, ann.post('/v1/tasks', { title: 'Write the report', priority: 'HIGH' }));
    expect(made.headers.get('location')).to.equal(`/v1/tasks/${made.body.id}`);
    expect(made.body).to.include({ state: 'PENDING', priority: 'HIGH', creatorId: ann.user.id });
    const listed = await expectStatus(200, ann.get('/v1/tasks?states=PENDING&text=report'));
    expect(listed.body.tasks.map((task: { id: string }) => task.id)).to.deep.equal([made.body.id]);
    const path = `/v1/tasks/${made.body.id}`;
    const changed = await expectStatus(200, ann.call('PATCH', path, { title: 'Write the long report' }));
    expect(changed.body.title).to.equal('Write the long report');
    expect((await expectStatus(200, ann.post(`${path}:complete`))).body.state).to.equal('COMPLETED');
    const gone = await ann.call('DELETE', path);
    expect([gone.status, gone.body]).to.deep.equal([204, undefined]);
    expect((await ann.get(path)).status).to.equal(404);
  });

  it('is told what is wrong, field and reason, and nothing has changed', async () => {
    const before = (await ann.get('/v1/tasks')).body.tasks.length;
    const empty = await ann.post('/v1/tasks', { titel: 'mistyped' });
    expect(empty.status).to.equal(400);
    expect(info(empty.body)).to.deep.include({ reason: 'FIELD_INVALID' });
    expect(JSON.stringify(empty.body)).to.include('title').and.include('dueTime');
    const made = await expectStatus(201, ann.post('/v1/tasks', { title: 'x' }));
    const patched = await ann.call('PATCH', `/v1/tasks/${made.body.id}`, { titel: 'y' });
    expect([patched.status, info(patched.body)?.reason]).to.deep.equal([400, 'NO_FIELDS']);
    await ann.call('DELETE', `/v1/tasks/${made.body.id}`);
    expect((await ann.get('/v1/tasks')).body.tasks.length).to.equal(before);
  });

  it('is refused with a wrong token, without one, and for what is in another workspace', async () => {
    const made = await expectStatus(201, ann.post('/v1/tasks', { title: 'mine' }));
    const none = await call(stack.urls.base, 'GET', '/v1/tasks');
    expect([none.status, info(none.body)?.reason]).to.deep.equal([401, 'TOKEN_MISSING']);
    const wrong = await call(stack.urls.base, 'GET', '/v1/tasks', undefined, { authorization: 'Bearer x.y.z' });
    expect([wrong.status, info(wrong.body)?.reason]).to.deep.equal([401, 'TOKEN_INVALID']);
    const bob = await signUp(stack.urls.base);
    for (const [method, path] of [
      ['GET', ''],
      ['PATCH', ''],
      ['DELETE', ''],
      ['POST', ':start'],
    ] as const) {
      const other = await bob.call(
        method,
        `/v1/tasks/${made.body.id}${path}`,
        method === 'GET' || method === 'DELETE' ? undefined : { title: 'z' },
      );
      expect([other.status, info(other.body)?.reason], `${method} ${path}`).to.deep.equal([404, 'RESOURCE_NOT_FOUND']);
    }
    expect((await ann.get(`/v1/tasks/${made.body.id}`)).body.title).to.equal('mine');
  });

  it('makes one task however often the request is sent with its key', async () => {
    const send = () => ann.post('/v1/tasks', { title: 'once' }, { 'idempotency-key': 'key-1' });
    const answers = await Promise.all([send(), send(), send(), send(), send()]);
    expect(new Set(answers.map((one) => one.body.id)).size).to.equal(1);
    const other = await ann.post('/v1/tasks', { title: 'twice' }, { 'idempotency-key': 'key-1' });
    expect([other.status, info(other.body)?.reason]).to.deep.equal([409, 'IDEMPOTENCY_KEY_REUSED']);
  });

  it('watches tasks change, as events and as lines', async () => {
    for (const sse of [true, false]) {
      const left = new AbortController();
      let title: string | undefined;
      for await (const frame of frames(ann, '/v1/tasks:watch', { sse, signal: left.signal })) {
        if (frame.keepAlive) await expectStatus(201, ann.post('/v1/tasks', { title: `seen ${sse}` }));
        title = frame.task?.title;
        if (title === `seen ${sse}`) break;
      }
      expect(title).to.equal(`seen ${sse}`);
      left.abort();
    }
  });
});
