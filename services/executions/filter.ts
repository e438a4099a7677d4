// What a caller's filter finds.
import type { ExecutionFilter } from '#gen/millrace/executions/v1/control_service.ts';
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import { Execution_State } from '#gen/millrace/executions/v1/execution.ts';
import { noFields, reasonsOf } from '#platform/errors.ts';
import { toBytes } from '#platform/id.ts';
import type { StateName } from './execution.ts';
import type { Filter } from './store.ts';

const FIELDS = ['states', 'automationId', 'createTimeFrom', 'createTimeTo', 'labels'];
const NAMES = new Map(Object.entries(Execution_State).map(([name, state]) => [state, name as StateName]));
const faults = reasonsOf<keyof typeof ErrorReason>('executions');

export type Wanted = Omit<Filter, 'before' | 'limit'>;

// `allowed`: the states that the method acts on; `usual`: those that no states mean.
export function wantedBy(filter: ExecutionFilter, allowed: readonly StateName[], usual: readonly StateName[]): Wanted {
  const states = filter.states.map((state) => NAMES.get(state) as StateName);
  const wrong = states.find((state) => !allowed.includes(state));
  if (wrong) {
    const violation = { field: 'filter.states', description: `must be of ${allowed.join(', ')}` };
    throw faults.invalid('FILTER_INVALID', `the method does not act on executions that are ${wrong}`, [violation]);
  }
  return {
    states: states.length > 0 ? states : usual,
    automation: filter.automationId ? toBytes('automation', filter.automationId, 'filter.automation_id') : undefined,
    from: filter.createTimeFrom,
    to: filter.createTimeTo,
    labels: filter.labels.map((label): [string, string] => {
      const at = label.indexOf('=');
      return [label.slice(0, at), label.slice(at + 1)];
    }),
  };
}

// What acts on many is not done to all by mistake.
export function mustFilter({ states, automationId, createTimeFrom, createTimeTo, labels }: ExecutionFilter): void {
  if (states.length + labels.length === 0 && !automationId && !createTimeFrom && !createTimeTo) throw noFields(FIELDS);
}
