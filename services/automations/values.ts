// values.ts: what an execution gets of the secrets and variables that its revision names, and what keeps it from starting.
import type { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import {
  ResolveValuesResponse_Item as Answer,
  type ResolveValuesRequest_Item as Item,
  ResolveValuesResponse_Problem_Reason as Reason,
} from '#gen/millrace/automations/v1/value_service.ts';
import type { Db } from '#platform/db.ts';
import { toBytes } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { faults } from './automation.ts';
import * as secret from './secret.ts';
import type { Vault } from './secret-vault.ts';
import * as secrets from './store/secrets.ts';
import * as variables from './store/variables.ts';

interface Deps {
  db: Db;
  vault: Vault;
  log: Logger;
}

// Reads each workspace once, whatever number of items is about it.
export async function resolve(deps: Deps, items: readonly Item[]): Promise<Answer[]> {
  const known = new Map<string, Awaited<ReturnType<typeof read>>>();
  for (const workspace of new Set(items.map(({ workspaceId }) => workspaceId))) {
    const own = items.filter(({ workspaceId }) => workspaceId === workspace);
    known.set(workspace, await read(deps.db, workspace, own));
  }
  return items.map((item) => answerTo(deps, item, known.get(item.workspaceId)));
}

async function read(db: Db, workspace: string, items: readonly Item[]) {
  const names = (of: 'secrets' | 'variables') => [...new Set(items.flatMap((item) => item[of]))];
  const [hidden, plain] = await Promise.all([
    secrets.named(db, workspace, names('secrets')),
    variables.named(db, workspace, names('variables')),
  ]);
  return {
    secrets: new Map(hidden.map((kept) => [kept.secret.name, kept])),
    variables: new Map(plain.map((variable) => [variable.name, variable])),
  };
}

function answerTo({ vault, log }: Deps, item: Item, known: Awaited<ReturnType<typeof read>> | undefined): Answer {
  const answer = Answer.fromPartial({});
  const problem = (kind: 'secret' | 'variable', name: string, reason: Reason) => void answer.problems.push({ kind, name, reason });
  for (const name of item.secrets) {
    const kept = known?.secrets.get(name);
    if (!kept) problem('secret', name, Reason.MISSING);
    else if (!secret.isAllowed(kept.secret, item.automationId, item.userId)) problem('secret', name, Reason.NOT_ALLOWED);
    else {
      const { id, valueVersion } = kept.secret;
      try {
        const value = vault.open(
          { workspace: toBytes('workspace', item.workspaceId), id: toBytes('secret', id), valueVersion },
          kept.sealed,
        );
        answer.secrets.push({ name, value, version: `${id}.${valueVersion}` });
      } catch (error) {
        log.error({ error, secret: id, key: kept.sealed.keyId }, 'a secret cannot be opened');
        problem('secret', name, Reason.UNREADABLE);
      }
    }
  }
  for (const name of item.variables) {
    const variable = known?.variables.get(name);
    if (variable) answer.variables.push({ name, valueJson: JSON.stringify(variable.value), version: `${variable.id}.${variable.version}` });
    else problem('variable', name, Reason.MISSING);
  }
  return answer;
}

// A revision is published only when all that it names is there for the automation. Whose executions may use it is known when they start.
export async function checkNamed(tx: Db, workspace: string, automationId: string, spec: AutomationSpec | undefined): Promise<void> {
  if (!spec || spec.secrets.length + spec.variables.length === 0) return;
  const hidden = await secrets.named(tx, workspace, spec.secrets);
  const plain = await variables.named(tx, workspace, spec.variables);
  const usable = new Set(hidden.filter((kept) => secret.isAllowed(kept.secret, automationId)).map((kept) => kept.secret.name));
  const missing = [
    ...spec.secrets.filter((name) => !usable.has(name)).map((name) => `secret ${name}`),
    ...spec.variables.filter((name) => !plain.some((variable) => variable.name === name)).map((name) => `variable ${name}`),
  ];
  if (missing.length === 0) return;
  throw faults.failedPrecondition(
    'VALUE_MISSING',
    `the revision names what the workspace does not have, or not for this automation: ${missing.join(', ')}`,
    { names: missing.join(', ') },
  );
}
