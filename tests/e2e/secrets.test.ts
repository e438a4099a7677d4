import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { wholeLog } from './journey.ts';
import { type Api, ended, expectStatus, type Json, publish, run, signUp } from './rest.ts';
import { theStack } from './stack.ts';

const exec = promisify(execFile);
const CANARIES = 50;
const OF_ONE = 5; // secrets of an automation

// Tells its secrets in every way that happens by itself, then fails or returns them.
const TELLS = `
import base64, json, logging, sys, time, urllib.parse
import millrace
def main(names: list[str], end: str = "return"):
    values = [millrace.secret(name) for name in names]
    print("not a secret")
    for value in values:
        half = len(value) // 2
        print("plain", value, file=sys.stderr)
        print("halves", value[:half], end="", flush=True)
        time.sleep(0.01)
        print(value[half:])
        print(base64.b64encode(b"user:" + value.encode()).decode(), base64.b64encode(value.encode()).decode())
        print(urllib.parse.quote(value), json.dumps([value]), repr(value), value.encode().hex())
        logging.warning("logged %s", value)
        millrace.progress(0.5, value)
    if end == "raise":
        raise RuntimeError(*values)
    return {value: [value, "x" + value] for value in values}
`;
const COUNTS = `
import hashlib, millrace
runs = 0
def main():
    global runs
    runs += 1
    return [runs, hashlib.sha256(millrace.secret("TOKEN").encode()).hexdigest()]
`;

// A value in the forms in which one looks for it. What depends on the neighbours is left out of Base64.
const shapes = (value: string): string[] => {
  const within = [0, 1, 2].map((before) => {
    const text = Buffer.concat([Buffer.alloc(before), Buffer.from(value)])
      .toString('base64')
      .replaceAll('=', '');
    return text.slice([0, 2, 3][before], -1);
  });
  return [value, ...within, encodeURIComponent(value), JSON.stringify(value).slice(1, -1), Buffer.from(value).toString('hex')];
};

// The files, or those below the folders, that hold one of the texts. grep looks for hundreds at once.
async function filesWith(texts: readonly string[], ...places: readonly string[]): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-canaries-'));
  try {
    writeFileSync(join(folder, 'texts'), `${texts.join('\n')}\n`);
    const args = ['-rlaF', '-f', join(folder, 'texts'), ...places];
    const { stdout } = await exec('grep', args, { env: { ...process.env, LC_ALL: 'C' } }).catch((error) => {
      if (error.code === 1) return { stdout: '' }; // none
      throw error;
    });
    return stdout.split('\n').filter(Boolean);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('secrets and variables, end to end', function () {
  this.timeout(120_000);
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(240_000);
    stack = await theStack();
    ann = await signUp(stack.urls.base);
  });

  const keep = async (name: string, value: string, more: Json = {}): Promise<Json> =>
    (await expectStatus(201, ann.post('/v1/secrets', { name, value, ...more }))).body;
  const done = async (automation: string, input: Json = {}): Promise<Json> => ended(ann, await run(ann, automation, input));

  it('the examples of docs/SECRETS.md do what they say', async () => {
    const eve = await signUp(stack.urls.base);
    const blocks = [...readFileSync('docs/SECRETS.md', 'utf8').matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block = '']) => block);
    const script = ['set -euo pipefail', 'curl() { command curl --fail-with-body "$@"; }', ...blocks].join('\n');
    const env = { ...process.env, BASE: stack.urls.base, HOST: stack.urls.host, TOKEN: eve.token };
    const { stdout } = await exec('bash', ['-c', script], { env, timeout: 110_000 }).catch((error) => {
      throw new Error(`the examples ended with ${error.code}:\n${error.stdout}\n${error.stderr}`);
    });
    for (const told of [
      '{"state":"SUCCEEDED","output":3}',
      'calling https://bank.example with ***',
      '"valueVersion":2',
      '{"name":"BANK_TOKEN","valueVersion":2,"description":"of the sandbox account"}',
      '{"state":"FAILED","attemptCount":1,"error":{"type":"SecretUnavailable","message":"It was not started. The workspace has no secret BANK_TOKEN."}}',
    ])
      expect(stdout).to.include(told);
    expect(stdout).to.not.include('tok_');
  });

  it('a revision that names what is not there is not published', async () => {
    const id = (await expectStatus(201, ann.post('/v1/automations', { name: 'early' }))).body.id;
    const spec = { source: 'pass', secrets: ['LATER'], variables: ['LATER'] };
    await expectStatus([200, 201], ann.post(`/v1/automations/${id}/revisions`, { spec }));
    const { body } = await expectStatus(400, ann.post(`/v1/automations/${id}:publish`));
    expect(JSON.stringify(body)).to.include('VALUE_MISSING').and.include('secret LATER, variable LATER');
    await keep('LATER', randomBytes(12).toString('hex'));
    await expectStatus(201, ann.post('/v1/variables', { name: 'LATER', value: 1 }));
    await expectStatus(200, ann.post(`/v1/automations/${id}:publish`));
  });

  it('a kept process is used again for the same value, and never for another', async () => {
    const first = randomBytes(12).toString('hex');
    const { id } = await keep('TOKEN', first);
    const automation = await publish(ann, COUNTS, { secrets: ['TOKEN'] });
    const digest = (value: string) => createHash('sha256').update(value).digest('hex');
    expect((await done(automation)).output).to.deep.equal([1, digest(first)]);
    expect((await done(automation)).output).to.deep.equal([2, digest(first)]);
    const second = randomBytes(12).toString('hex');
    await expectStatus(200, ann.post(`/v1/secrets/${id}:rotate`, { value: second }));
    expect((await done(automation)).output).to.deep.equal([1, digest(second)]);
  });

  it('none of 50 planted secrets is found: not in a log or result, on no disk of a part, in no environment', async () => {
    const marks = { description: `d${randomBytes(12).toString('hex')}` };
    const values = new Map<string, string>();
    for (let index = 0; index < CANARIES; index += 1) {
      const value = `${randomBytes(9).toString('hex')}${['', '+/="', "ü\\'", ' & <b>', '%20?'][index % 5]}${randomBytes(9).toString('base64')}`;
      values.set(`C${index}`, value);
      await keep(`C${index}`, value, marks);
    }
    const names = [...values.keys()];
    const told: string[] = [];
    const runs: Promise<void>[] = [];
    for (let at = 0; at < CANARIES; at += OF_ONE) {
      const own = names.slice(at, at + OF_ONE);
      const isolation = at % 2 === 0 ? 'FRESH' : 'REUSED';
      const automation = await publish(ann, TELLS, { secrets: own, isolation, retryPolicy: { maxAttempts: 1 } });
      for (const end of ['return', 'raise', 'return']) {
        const id = await run(ann, automation, { names: own, end });
        runs.push(
          ended(ann, id).then(async (execution) => {
            expect(execution.state).to.equal(end === 'raise' ? 'FAILED' : 'SUCCEEDED');
            told.push(JSON.stringify([execution, await wholeLog(ann, id), (await ann.get(`/v1/executions/${id}/attempts`)).body]));
          }),
        );
      }
    }
    await Promise.all(runs);
    await Promise.all(names.map((name) => ann.get(`/v1/secrets?name=${name}`).then(({ body }) => told.push(JSON.stringify(body)))));
    const all = told.join('\n');
    expect(all.split('not a secret').length - 1).to.equal(30);
    expect(all).to.include('"halves ').and.include('"logged ***"').and.include('"message":"***"').and.include(marks.description);

    const shown = all;
    expect([...values].filter(([, value]) => shapes(value).some((shape) => shown.includes(shape)))).to.deep.equal([]);
    // what is looked for can be found where it may be: the description is in the database's files
    const { root, data, logs } = stack.layout;
    expect((await filesWith([marks.description], root)).filter((file) => file.startsWith(data))).to.not.deep.equal([]);
    expect(readdirSync(logs)).to.have.length.above(4);
    const parts = stack.parts.map((part) => `/proc/${stack.pid(part)}`).flatMap((process) => [`${process}/environ`, `${process}/cmdline`]);
    expect(await filesWith([...values.values()].flatMap(shapes), root, ...parts)).to.deep.equal([]);
  });
});
