// `make demo`: the main job as a newcomer does it, with nothing but HTTP through the edge. Signs a new user up, publishes
// examples/hello.py as an automation, runs it, prints its log as it comes, then its result.
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { styleText } from 'node:util';
import { readChoices } from '../deploy/local/environment.ts';
import { layoutOf } from '../deploy/local/layout.ts';
import { events } from './sse.ts';

const EXAMPLE = 'examples/hello.py';
const RESUMES = 10;
const RESUME_MS = 1000;

interface Entry {
  cursor: string;
  time: string;
  stream: string;
  level?: string;
  text?: string;
}
interface Frame {
  entry?: Entry;
  attemptEnd?: { count: number; sha256: string };
  end?: { code?: number; message?: string; state: string };
}

const layout = layoutOf(readChoices().home);
const base = process.env.BASE ?? /^export BASE=(.*)$/m.exec(readFileSync(layout.env, 'utf8'))?.[1] ?? 'http://localhost:8000';

// biome-ignore lint/suspicious/noExplicitAny: answers as they come
type Json = any;

async function call(method: string, path: string, body?: object | URLSearchParams, token?: string): Promise<Json> {
  const isForm = body instanceof URLSearchParams;
  const answer = await fetch(base + path, {
    method,
    headers: {
      ...(body && !isForm ? { 'content-type': 'application/json' } : {}),
      ...(token ? { authorization: `Bearer ${token}` } : {}),
    },
    ...(body ? { body: isForm ? body : JSON.stringify(body) } : {}),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path} answered ${answer.status}: ${text}`);
  return text === '' ? undefined : JSON.parse(text);
}

const step = (what: string) => console.log(`\n${styleText('bold', what)}`);

async function signIn(): Promise<string> {
  const username = `demo-${randomBytes(4).toString('hex')}`;
  const password = randomBytes(12).toString('base64url');
  await call('POST', '/v1/users', { email: `${username}@example.com`, username, password, displayName: 'Demo' });
  console.log(`POST /v1/users           ${username}`);
  const { access_token: token } = await call('POST', '/oauth2/token', new URLSearchParams({ grant_type: 'password', username, password }));
  console.log(`POST /oauth2/token       an access token for 15 minutes`);
  return token;
}

async function publish(token: string): Promise<string> {
  const source = readFileSync(EXAMPLE, 'utf8');
  const { id } = await call('POST', '/v1/automations', { name: 'Hello', description: `From ${EXAMPLE}` }, token);
  console.log(`POST /v1/automations     ${id}`);
  const revision = await call('POST', `/v1/automations/${id}/revisions`, { spec: { source }, note: 'the first' }, token);
  console.log(
    `POST …/revisions         revision ${revision.number}, ${source.split('\n').length - 1} lines of Python, checked in the sandbox`,
  );
  await call('POST', `/v1/automations/${id}:publish`, { revision: revision.number }, token);
  console.log('POST …:publish           it is the one that runs');
  return id;
}

// Follows the log to its end. A stream that is cut is resumed after the last line that was seen.
async function follow(id: string, token: string): Promise<string> {
  let cursor = '';
  const seen = (entry: Entry) => {
    cursor = entry.cursor;
    console.log(`  ${entry.time.slice(11, 23)}  ${(entry.level || entry.stream).toLowerCase().padEnd(8)} ${entry.text ?? ''}`);
  };
  for (let cuts = 0; cuts < RESUMES; cuts += 1) {
    const state = await readLog(id, token, cursor, seen).catch((error: Error) => console.log(`  (the stream was cut: ${error.message})`));
    if (state) return state;
    await sleep(RESUME_MS);
  }
  throw new Error('the log was cut too often');
}

// Reads until the stream ends. Answers the execution's state if it ended because the log is complete.
async function readLog(id: string, token: string, cursor: string, seen: (entry: Entry) => void): Promise<string | undefined> {
  const query = new URLSearchParams({ follow: 'true', ...(cursor ? { cursor } : {}) });
  const headers = { accept: 'text/event-stream', authorization: `Bearer ${token}` };
  const answer = await fetch(`${base}/v1/executions/${id}/logs?${query}`, { headers });
  if (!answer.ok || !answer.body) throw new Error(`${answer.status}: ${await answer.text()}`);
  for await (const { entry, attemptEnd, end } of events(answer.body) as AsyncGenerator<Frame>) {
    if (entry) seen(entry);
    if (attemptEnd) console.log(`  ${attemptEnd.count} lines, SHA-256 ${attemptEnd.sha256.slice(0, 16)}…`);
    if (end) return end.code ? undefined : end.state;
  }
  return undefined;
}

async function main(): Promise<void> {
  step(`A new user signs in at ${base}`);
  const token = await signIn();
  step('An automation is written and published');
  const automation = await publish(token);
  step('It runs; the log comes as it is printed');
  const execution = await call('POST', '/v1/executions', { automationId: automation, input: { name: 'Millrace' } }, token);
  console.log(`POST /v1/executions      ${execution.id}`);
  console.log('GET  …/logs?follow=true  accept: text/event-stream');
  const state = await follow(execution.id, token);
  step(`It ended: ${state}`);
  const { output, error } = await call('GET', `/v1/executions/${execution.id}/result`, undefined, token);
  console.log(JSON.stringify(output ?? error, null, 2));
  step('Where to go next');
  console.log(`  change ${EXAMPLE} and run \`make demo\` again
  README.md, "First use": the same by curl and grpcurl, step by step
  docs/API.md: errors, paging, streams
  make status, make logs, make down`);
  if (state !== 'SUCCEEDED') throw new Error(`the execution ended as ${state}`);
}

process.stdout.on('error', () => process.exit(0)); // nobody reads on, as with `make demo | head`

main().catch((error: Error) => {
  console.error(`\nthe demo failed: ${error.message}\nThe way out: \`make status\` and \`make logs\` tell which part is unwell.`);
  process.exit(1);
});
