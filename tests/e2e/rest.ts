// The API as a person with curl uses it: REST through the edge, nothing of our clients.
import { randomBytes } from 'node:crypto';

// biome-ignore lint/suspicious/noExplicitAny: JSON as it comes
export type Json = any;
export interface Answer {
  status: number;
  headers: Headers;
  body: Json; // undefined when there is none
}
export interface Api {
  base: string;
  user: Json;
  token: string;
  refreshToken: string;
  username: string;
  password: string;
  call(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>;
  get(path: string, headers?: Record<string, string>): Promise<Answer>;
  post(path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>;
}

const PATIENCE_MS = 60_000;

export async function call(
  base: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const isForm = body instanceof URLSearchParams;
  const answer = await fetch(base + path, {
    method,
    headers: { ...(body === undefined || isForm ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: isForm ? body : typeof body === 'string' ? body : JSON.stringify(body) }),
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, body: text === '' ? undefined : parsed(text) };
}

const parsed = (text: string): Json => {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
};

// Somebody new: registered, and signed in by the form.
export async function signUp(base: string): Promise<Api> {
  const username = `u${randomBytes(6).toString('hex')}`;
  const password = randomBytes(12).toString('base64url');
  const registered = await call(base, 'POST', '/v1/users', { email: `${username}@example.com`, username, password, displayName: 'Ann' });
  if (registered.status !== 201) throw new Error(`registering answered ${registered.status}: ${JSON.stringify(registered.body)}`);
  const granted = await call(base, 'POST', '/oauth2/token', new URLSearchParams({ grant_type: 'password', username, password }));
  if (granted.status !== 200) throw new Error(`the token endpoint answered ${granted.status}: ${JSON.stringify(granted.body)}`);
  const token = granted.body.access_token;
  const own = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) =>
    call(base, method, path, body, { authorization: `Bearer ${token}`, ...headers });
  return {
    base,
    user: registered.body,
    token,
    refreshToken: granted.body.refresh_token,
    username,
    password,
    call: own,
    get: (path, headers) => own('GET', path, undefined, headers),
    post: (path, body = {}, headers) => own('POST', path, body, headers),
  };
}

// An automation with a published revision; answers its id.
export async function publish(api: Api, source: string, spec: Record<string, unknown> = {}): Promise<string> {
  const made = await expectStatus(201, api.post('/v1/automations', { name: `a ${randomBytes(6).toString('hex')}` }));
  const id = made.body.id;
  await expectStatus([200, 201], api.post(`/v1/automations/${id}/revisions`, { spec: { source, ...spec } }));
  await expectStatus(200, api.post(`/v1/automations/${id}:publish`));
  return id;
}

export async function expectStatus(wanted: number | number[], answer: Promise<Answer>): Promise<Answer> {
  const got = await answer;
  if (![wanted].flat().includes(got.status)) throw new Error(`answered ${got.status} instead of ${wanted}: ${JSON.stringify(got.body)}`);
  return got;
}

export const run = async (api: Api, automationId: string, input: unknown = {}, more: Record<string, unknown> = {}): Promise<string> =>
  (await expectStatus(201, api.post('/v1/executions', { automationId, input, ...more }))).body.id;

// Waits for the end and answers the execution.
export async function ended(api: Api, id: string, patienceMs = 60_000): Promise<Json> {
  for await (const frame of frames(api, `/v1/executions/${id}:watch`, { patienceMs })) {
    if (frame.end && frame.end.code === 0) return (await expectStatus(200, api.get(`/v1/executions/${id}`))).body;
  }
  throw new Error(`the watch of ${id} ended without the execution having ended`);
}

// The frames of a stream, as server-sent events or as a JSON object a line.
export async function* frames(
  api: Api,
  path: string,
  options: { sse?: boolean; patienceMs?: number; signal?: AbortSignal } = {},
): AsyncGenerator<Json> {
  const signals = [AbortSignal.timeout(options.patienceMs ?? PATIENCE_MS), ...(options.signal ? [options.signal] : [])];
  const answer = await fetch(api.base + path, {
    headers: { authorization: `Bearer ${api.token}`, ...(options.sse ? { accept: 'text/event-stream' } : {}) },
    signal: AbortSignal.any(signals),
  });
  const type = options.sse ? 'text/event-stream' : 'application/x-ndjson';
  if (answer.status !== 200 || !answer.headers.get('content-type')?.startsWith(type)) {
    throw new Error(`the stream answered ${answer.status} ${answer.headers.get('content-type')}: ${await answer.text()}`);
  }
  let rest = '';
  for await (const chunk of answer.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    const parts = (rest + chunk).split('\n');
    rest = parts.pop() ?? '';
    for (const part of parts) {
      const text = options.sse ? part.replace(/^data: ?/, '') : part;
      if (text.trim() !== '') yield JSON.parse(text);
    }
  }
}
