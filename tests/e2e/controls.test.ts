import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { type Api, publish, signUp } from './rest.ts';
import { theStack } from './stack.ts';

const exec = promisify(execFile);
const FAILS = 'curl() { command curl --fail-with-body "$@"; }'; // what is refused ends the script

// The examples of docs/CONTROLS.md, one after the other, as a newcomer with a shell would run them.
describe('the examples of docs/CONTROLS.md', () => {
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(240_000);
    stack = await theStack();
    ann = await signUp(stack.urls.base);
  });

  it('do what they say through the edge, by REST and by gRPC', async function () {
    this.timeout(120_000);
    const text = readFileSync('docs/CONTROLS.md', 'utf8');
    const blocks = [...text.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block = '']) => block);
    expect(blocks).to.have.length.above(5);
    const id = await publish(ann, 'def main(name: str = "Ann"):\n    return name\n');
    const script = ['set -euo pipefail', FAILS, ...blocks.map((block, index) => `echo "== ${index}"\n${block}`)].join('\n');
    const env = { ...process.env, BASE: stack.urls.base, HOST: stack.urls.host, TOKEN: ann.token, ID: id };
    const { stdout } = await exec('bash', ['-c', script], { env, timeout: 110_000 }).catch((error) => {
      throw new Error(`the examples ended with ${error.code}:\n${error.stdout}\n${error.stderr}`);
    });
    for (const word of [
      'SCHEDULED',
      'PAUSED',
      'CANCELLED',
      '"retryOf"',
      '"cancelledCount"',
      '"retriedCount"',
      'data: {"execution"',
      '"cursor"',
      '"weight": 2',
      'NO_MATCHING_SERVER',
      '"region": "eu"',
      'RUN_MINUTES_PER_MONTH',
    ])
      expect(stdout, word).to.include(word);
    for (const word of ['DRAINING', 'STOPPED', 'MAINTENANCE', 'NORMAL']) expect(stdout, word).to.include(word);
    expect(stdout.split('== ')).to.have.length(blocks.length + 1);
  });
});
