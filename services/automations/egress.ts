// egress.ts: what an egress policy is and how it may change.
import { EgressPolicy, type EgressRule } from '#gen/millrace/automations/v1/egress_policy.ts';

export const UPDATABLE = ['rules', 'max_connections', 'max_mib'] as const;

// That of a workspace that never set one: nothing is allowed.
export const NONE: EgressPolicy = EgressPolicy.fromPartial({});

const DEFAULT_CONNECTIONS = 16;
const DEFAULT_MIB = 100;

export function update(
  before: EgressPolicy,
  draft: EgressPolicy,
  fields: readonly (typeof UPDATABLE)[number][],
  updaterId: string,
  now: Date,
): EgressPolicy {
  return {
    rules: fields.includes('rules') ? draft.rules.map(filled) : before.rules,
    maxConnections: (fields.includes('max_connections') ? draft.maxConnections : before.maxConnections) || DEFAULT_CONNECTIONS,
    maxMib: (fields.includes('max_mib') ? draft.maxMib : before.maxMib) || DEFAULT_MIB,
    version: before.version + 1,
    updaterId,
    updateTime: now,
  };
}

const filled = ({ host, ports }: EgressRule): EgressRule => ({ host, ports: ports.length > 0 ? ports : [443] });
