import { expect } from 'chai';
import {
  AutomationSpec,
  AutomationSpec_Isolation,
  AutomationSpec_Network,
  AutomationSpec_OnLost,
  Concurrency_Policy,
} from '#gen/millrace/automations/v1/spec.ts';
import { refusal } from '../../tests/refusal.ts';
import * as specs from './spec.ts';

const seconds = (count: number) => ({ seconds: count, nanos: 0 });
const draft = (fields: Partial<AutomationSpec> = {}) =>
  AutomationSpec.fromPartial({ source: 'def main(): pass\n', ...fields } as AutomationSpec);
const fine: specs.Checked = { problems: [], hasMain: true, inputSchema: { type: 'object' }, outputSchema: { type: 'null' } };

describe('a spec', () => {
  it('is kept with every default filled in and the schemas derived', () => {
    expect(specs.fill(draft(), fine)).to.deep.equal({
      source: 'def main(): pass\n',
      inputSchema: { type: 'object' },
      outputSchema: { type: 'null' },
      timeouts: { scheduleToStart: undefined, startToClose: seconds(300), scheduleToClose: seconds(86_400), heartbeat: undefined },
      retryPolicy: { maxAttempts: 3, initialInterval: seconds(1), coefficient: 2, maxInterval: seconds(60), nonRetryableTypes: [] },
      resources: { memoryMib: 512, processes: 64, cpuSeconds: 60, diskMib: 64 },
      isolation: AutomationSpec_Isolation.REUSED,
      onLost: AutomationSpec_OnLost.RETRY,
      environment: 'base',
      environmentDigest: '',
      queue: 'default',
      network: AutomationSpec_Network.NONE,
      selector: {},
      retention: undefined,
      secrets: [],
      variables: [],
      concurrency: undefined,
    });
    expect(specs.fill(draft({ concurrency: { max: 3, key: [], policy: 0, maxQueued: 0 } }), fine).concurrency).to.deep.equal({
      max: 3,
      key: [],
      policy: Concurrency_Policy.QUEUE,
      maxQueued: 0,
    });
  });

  it('shares processes only for a main function, and only unless told otherwise', () => {
    const isolationOf = (isolation: AutomationSpec_Isolation, hasMain: boolean) =>
      specs.fill(draft({ isolation }), { ...fine, hasMain }).isolation;
    const { ISOLATION_UNSPECIFIED, FRESH, REUSED } = AutomationSpec_Isolation;
    expect([isolationOf(ISOLATION_UNSPECIFIED, true), isolationOf(ISOLATION_UNSPECIFIED, false)]).to.deep.equal([REUSED, FRESH]);
    expect([isolationOf(FRESH, true), isolationOf(REUSED, true)]).to.deep.equal([FRESH, REUSED]);
  });

  it('keeps what was given, and is the same when it is filled again', () => {
    const given = draft({
      inputSchema: { type: 'object', required: ['n'] },
      outputSchema: {},
      timeouts: {
        scheduleToStart: seconds(7),
        startToClose: { seconds: 0, nanos: 5e6 },
        scheduleToClose: seconds(9),
        heartbeat: seconds(1),
      },
      retryPolicy: {
        maxAttempts: 1,
        initialInterval: seconds(0),
        coefficient: 1.5,
        maxInterval: seconds(0),
        nonRetryableTypes: ['ValueError'],
      },
      resources: { memoryMib: 1, processes: 2, cpuSeconds: 3, diskMib: 4 },
      isolation: AutomationSpec_Isolation.REUSED,
      onLost: AutomationSpec_OnLost.FAIL,
      environment: 'base',
      environmentDigest: '',
      queue: 'billing',
      network: AutomationSpec_Network.EGRESS,
    });
    expect(specs.fill(given, fine)).to.deep.equal(given);
    const filled = specs.fill(draft(), fine);
    expect(specs.fill(filled, { problems: [] })).to.deep.equal(filled);
  });

  it('is refused with its source, naming line and column of each problem', () => {
    const problems = [
      { line: 2, column: 5, message: 'invalid syntax' },
      { line: 0, column: 0, message: 'main is a class' },
    ];
    const { reason, message, violations } = refusal(() => specs.fill(draft(), { problems }));
    expect(reason).to.equal('SOURCE_INVALID');
    expect(message).to.include('line 2, column 5: invalid syntax');
    expect(violations).to.deep.equal([
      { field: 'spec.source:2:5', description: 'invalid syntax' },
      { field: 'spec.source:0:0', description: 'main is a class' },
    ]);
  });

  it('is refused with a schema that is none, given or derived', () => {
    const unsound = { type: 'int' };
    for (const [act, field] of [
      [() => specs.checkSchemas(draft({ inputSchema: unsound })), 'spec.inputSchema'],
      [() => specs.checkSchemas(draft({ outputSchema: unsound })), 'spec.outputSchema'],
      [() => specs.fill(draft(), { problems: [], inputSchema: unsound }), 'spec.inputSchema'],
    ] as const) {
      const { reason, violations } = refusal(act);
      expect({ reason, field: violations[0]?.field }).to.deep.equal({ reason: 'SCHEMA_INVALID', field });
    }
  });

  it('is compared setting by setting, each as JSON', () => {
    const from = specs.fill(draft({ inputSchema: { a: 1 }, isolation: AutomationSpec_Isolation.FRESH }), fine);
    const to = specs.fill(
      draft({
        source: 'other',
        timeouts: { startToClose: { seconds: 1, nanos: 500_000_000 }, heartbeat: seconds(3) } as AutomationSpec['timeouts'],
        isolation: AutomationSpec_Isolation.REUSED,
        retryPolicy: { nonRetryableTypes: ['ValueError'] } as AutomationSpec['retryPolicy'],
      }),
      fine,
    );
    expect(specs.settingDiffs(from, from)).to.deep.equal([]);
    expect(specs.settingDiffs(from, to)).to.deep.equal([
      { path: 'input_schema', fromJson: '{"a":1}', toJson: '{"type":"object"}' },
      { path: 'timeouts.start_to_close', fromJson: '"300s"', toJson: '"1.5s"' },
      { path: 'timeouts.heartbeat', fromJson: '', toJson: '"3s"' },
      { path: 'retry_policy.non_retryable_types', fromJson: '[]', toJson: '["ValueError"]' },
      { path: 'isolation', fromJson: '"FRESH"', toJson: '"REUSED"' },
    ]);
  });

  it('is compared in every setting that the contract has', () => {
    const flat = (value: object, prefix = ''): string[] =>
      Object.entries(value).flatMap(([name, part]) => {
        const path = prefix + name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
        const isGroup = ['timeouts', 'retry_policy', 'resources', 'concurrency', 'retention'].includes(path);
        return isGroup ? flat(part as object, `${path}.`) : [path];
      });
    const full = AutomationSpec.fromPartial({ timeouts: {}, retryPolicy: {}, resources: {}, concurrency: {}, retention: {} });
    const other = specs.settingDiffs(AutomationSpec.fromPartial({ isolation: 1, onLost: 1 }), {
      ...specs.fill(
        draft({
          retention: { payloads: seconds(1), deleteAfterUse: true, artifacts: seconds(60) },
          selector: { gpu: 'yes' },
          secrets: ['TOKEN'],
          variables: ['REGION'],
          isolation: 2,
          onLost: 2,
          network: 2,
          timeouts: { scheduleToStart: seconds(1), heartbeat: seconds(1) } as AutomationSpec['timeouts'],
          concurrency: { max: 1, key: [], policy: 0, maxQueued: 0 },
        }),
        fine,
        'd'.repeat(64),
      ),
    });
    expect([...other.map(({ path }) => path), 'source']).to.have.members(flat(full));
  });
});
