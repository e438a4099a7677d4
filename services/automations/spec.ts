// spec.ts: what a revision runs and how: its defaults, its checks, and how two of them differ.
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Duration } from '#gen/google/protobuf/duration.ts';
import type { SourceProblem } from '#gen/millrace/automations/v1/automation.ts';
import type { SettingDiff } from '#gen/millrace/automations/v1/automation_service.ts';
import {
  type AutomationSpec,
  AutomationSpec_Isolation,
  AutomationSpec_Network,
  AutomationSpec_OnLost,
  automationSpec_IsolationToJSON,
  automationSpec_NetworkToJSON,
  automationSpec_OnLostToJSON,
  Concurrency_Policy,
  concurrency_PolicyToJSON,
} from '#gen/millrace/automations/v1/spec.ts';
import type { Fault } from '#platform/errors.ts';
import { faults } from './automation.ts';
import { type JsonSchema, schemaProblem } from './schema.ts';

// What a server found in the source.
export interface Checked {
  problems: readonly SourceProblem[];
  hasMain?: boolean;
  inputSchema?: JsonSchema | undefined;
  outputSchema?: JsonSchema | undefined;
}

const seconds = (count: number): Duration => ({ seconds: count, nanos: 0 });

// The spec with every default filled in and the schemas derived, as a revision keeps it.
export function fill(draft: AutomationSpec, checked: Checked, environmentDigest = ''): AutomationSpec {
  if (checked.problems.length > 0) throw sourceInvalid(checked.problems);
  const { timeouts, retryPolicy, resources } = draft;
  return {
    source: draft.source,
    inputSchema: sound('spec.inputSchema', draft.inputSchema ?? checked.inputSchema),
    outputSchema: sound('spec.outputSchema', draft.outputSchema ?? checked.outputSchema),
    timeouts: {
      scheduleToStart: timeouts?.scheduleToStart,
      startToClose: timeouts?.startToClose ?? seconds(5 * 60),
      scheduleToClose: timeouts?.scheduleToClose ?? seconds(24 * 3600),
      heartbeat: timeouts?.heartbeat,
    },
    retryPolicy: {
      maxAttempts: retryPolicy?.maxAttempts || 3,
      initialInterval: retryPolicy?.initialInterval ?? seconds(1),
      coefficient: retryPolicy?.coefficient || 2,
      maxInterval: retryPolicy?.maxInterval ?? seconds(60),
      nonRetryableTypes: retryPolicy?.nonRetryableTypes ?? [],
    },
    resources: {
      memoryMib: resources?.memoryMib || 512,
      processes: resources?.processes || 64,
      cpuSeconds: resources?.cpuSeconds || 60,
      diskMib: resources?.diskMib || 64,
    },
    isolation: draft.isolation || (checked.hasMain ? AutomationSpec_Isolation.REUSED : AutomationSpec_Isolation.FRESH),
    onLost: draft.onLost || AutomationSpec_OnLost.RETRY,
    environment: draft.environment || 'base',
    environmentDigest,
    queue: draft.queue || 'default',
    selector: draft.selector,
    network: draft.network || AutomationSpec_Network.NONE,
    retention: draft.retention,
    secrets: draft.secrets,
    variables: draft.variables,
    concurrency: draft.concurrency && { ...draft.concurrency, policy: draft.concurrency.policy || Concurrency_Policy.QUEUE },
  };
}

// Schemas that a caller gave are checked before their source is, which costs more. Derived ones are no better: the source made them.
export function checkSchemas({ inputSchema, outputSchema }: AutomationSpec): void {
  sound('spec.inputSchema', inputSchema);
  sound('spec.outputSchema', outputSchema);
}

function sound(field: string, schema: JsonSchema | undefined): JsonSchema | undefined {
  const problem = schema && schemaProblem(schema);
  if (!problem) return schema;
  throw faults.invalid('SCHEMA_INVALID', `${field} is not a JSON Schema (2020-12): ${problem}`, [{ field, description: problem }]);
}

function sourceInvalid(problems: readonly SourceProblem[]): Fault {
  const places = problems.map(({ line, column, message }) => ({ field: `spec.source:${line}:${column}`, description: message }));
  const all = problems.map(({ line, column, message }) => `line ${line}, column ${column}: ${message}`).slice(0, 3);
  return faults.invalid('SOURCE_INVALID', `the source cannot run: ${all.join('; ')}`, places);
}

export const sourceHash = (source: string): string => createHash('sha256').update(source).digest('hex');

// The settings by their paths in AutomationSpec, each as protobuf writes it in JSON.
const SETTINGS: Record<string, (spec: AutomationSpec) => unknown> = {
  input_schema: (spec) => spec.inputSchema,
  output_schema: (spec) => spec.outputSchema,
  'timeouts.schedule_to_start': (spec) => inSeconds(spec.timeouts?.scheduleToStart),
  'timeouts.start_to_close': (spec) => inSeconds(spec.timeouts?.startToClose),
  'timeouts.schedule_to_close': (spec) => inSeconds(spec.timeouts?.scheduleToClose),
  'timeouts.heartbeat': (spec) => inSeconds(spec.timeouts?.heartbeat),
  'retry_policy.max_attempts': (spec) => spec.retryPolicy?.maxAttempts,
  'retry_policy.initial_interval': (spec) => inSeconds(spec.retryPolicy?.initialInterval),
  'retry_policy.coefficient': (spec) => spec.retryPolicy?.coefficient,
  'retry_policy.max_interval': (spec) => inSeconds(spec.retryPolicy?.maxInterval),
  'retry_policy.non_retryable_types': (spec) => spec.retryPolicy?.nonRetryableTypes,
  'resources.memory_mib': (spec) => spec.resources?.memoryMib,
  'resources.processes': (spec) => spec.resources?.processes,
  'resources.cpu_seconds': (spec) => spec.resources?.cpuSeconds,
  'resources.disk_mib': (spec) => spec.resources?.diskMib,
  network: (spec) => automationSpec_NetworkToJSON(spec.network || AutomationSpec_Network.NONE),
  isolation: (spec) => automationSpec_IsolationToJSON(spec.isolation),
  on_lost: (spec) => automationSpec_OnLostToJSON(spec.onLost),
  environment: (spec) => spec.environment,
  environment_digest: (spec) => spec.environmentDigest || undefined,
  queue: (spec) => spec.queue,
  selector: (spec) => spec.selector,
  'retention.payloads': (spec) => inSeconds(spec.retention?.payloads),
  'retention.artifacts': (spec) => inSeconds(spec.retention?.artifacts),
  'retention.delete_after_use': (spec) => spec.retention?.deleteAfterUse || undefined,
  secrets: (spec) => spec.secrets,
  variables: (spec) => spec.variables,
  'concurrency.max': (spec) => spec.concurrency?.max,
  'concurrency.key': (spec) => spec.concurrency?.key,
  'concurrency.policy': (spec) => spec.concurrency && concurrency_PolicyToJSON(spec.concurrency.policy),
  'concurrency.max_queued': (spec) => spec.concurrency?.maxQueued,
};

// Which settings differ. The sources are compared line by line elsewhere.
export function settingDiffs(from: AutomationSpec, to: AutomationSpec): SettingDiff[] {
  const json = (value: unknown): string => (value === undefined ? '' : JSON.stringify(value));
  return Object.entries(SETTINGS)
    .filter(([, valueIn]) => !isDeepStrictEqual(valueIn(from), valueIn(to)))
    .map(([path, valueIn]) => ({ path, fromJson: json(valueIn(from)), toJson: json(valueIn(to)) }));
}

// As 1.5s. Spans in a spec are not negative.
function inSeconds(span: Duration | undefined): string | undefined {
  if (!span) return undefined;
  const fraction = span.nanos === 0 ? '' : `.${String(span.nanos).padStart(9, '0').replace(/0+$/, '')}`;
  return `${span.seconds}${fraction}s`;
}
