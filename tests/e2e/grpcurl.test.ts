import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { type Api, signUp } from './rest.ts';
import { theStack } from './stack.ts';

const exec = promisify(execFile);

describe('a newcomer with grpcurl', () => {
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(120_000);
    stack = await theStack();
    ann = await signUp(stack.urls.base);
  });
  const grpcurl = async (...args: string[]): Promise<string> => (await exec('build/tools/grpcurl', ['-plaintext', ...args])).stdout;

  it('lists the services through the edge, and none that only services may call', async () => {
    const services = (await grpcurl(stack.urls.host, 'list')).split('\n');
    expect(services).to.include.members([
      'millrace.tasks.v1.TaskService',
      'millrace.executions.v1.ExecutionService',
      'millrace.identity.v1.IdentityService',
    ]);
    expect(services.filter((name) => /Projection|ServerService|Runner/.test(name))).to.deep.equal([]);
  });

  it('describes messages with well-known types', async () => {
    expect(await grpcurl(stack.urls.host, 'describe', 'millrace.tasks.v1.Task')).to.include('google.protobuf.Timestamp create_time');
    expect(await grpcurl(stack.urls.host, 'describe', 'millrace.executions.v1.ExecutionService')).to.include('rpc TailExecutionLogs');
  });

  it('makes a task with a token, and is refused without', async () => {
    const data = ['-d', '{"task":{"title":"by grpcurl"}}'];
    const made = JSON.parse(
      await grpcurl(...data, '-H', `authorization: Bearer ${ann.token}`, stack.urls.host, 'millrace.tasks.v1.TaskService/CreateTask'),
    );
    expect(made).to.include({ title: 'by grpcurl', state: 'PENDING' });
    const refused = await grpcurl(...data, stack.urls.host, 'millrace.tasks.v1.TaskService/CreateTask').catch(
      (error) => error.stderr as string,
    );
    expect(refused).to.include('Unauthenticated');
  });

  it('runs a script on the automation server alone, with a service token', async () => {
    const env = { ...process.env, MILLRACE_HOME: stack.layout.root, SERVICE: 'dispatcher' };
    const token = (await exec('node', ['deploy/local/main.ts', 'token'], { env })).stdout.trim();
    const job = JSON.stringify({ job: { source: 'def main(n: int):\n    print("hello", n)\n    return n * 2\n', inputJson: '{"n": 21}' } });
    const out = await grpcurl('-d', job, '-H', `authorization: Bearer ${token}`, stack.urls.runner, 'millrace.runner.v1.RunnerService/Run');
    expect(out).to.include('"text": "hello 21"').and.include('"outputJson": "42"').and.include('"outcome": "SUCCEEDED"');
  });
});
