// intake.ts: takes a request to a hook: proves where it comes from, decides what becomes of it, keeps it, and only then has it run.
import { type Execution, execution_StateToJSON } from '#gen/millrace/executions/v1/execution.ts';
import type { ErrorReason } from '#gen/millrace/webhooks/v1/error_reason.ts';
import { Hook } from '#gen/millrace/webhooks/v1/hook.ts';
import { type Fault, fault, notFound, reasonsOf } from '#platform/errors.ts';
import { failpoint } from '#platform/failpoint.ts';
import { newBytes, newId, toBytes } from '#platform/id.ts';
import { counter } from '#platform/metrics.ts';
import type { Expressions } from './expressions.ts';
import { accept, waitMsOf } from './hook.ts';
import * as system from './hook-system.ts';
import type { Refusals } from './refusals.ts';
import { deliveryIdOf, keysOf, MAX_BODY_BYTES, type Request, redacted } from './request.ts';
import { type Routed, route } from './routing.ts';
import * as secrets from './secrets.ts';
import { verify } from './signature.ts';
import { ended, type Deps as StartDeps, settled, start } from './start.ts';
import * as deliveries from './store/deliveries.ts';

export interface Deps extends StartDeps {
  vault: secrets.Vault;
  expressions: Expressions;
  refusals: Refusals;
  clock: () => Date;
}
export interface Answer {
  deliveryId: string;
  state: string; // the delivery's, or the execution's once that has ended
  executionId?: string;
  output?: unknown;
  error?: { type: string; message: string };
}
export interface Intake {
  receive(id: string, request: Request, remoteAddress: string, signal: AbortSignal): Promise<{ code: number; answer: Answer }>;
}

export const faults = reasonsOf<keyof typeof ErrorReason>('webhooks');
const received = counter('millrace_webhooks_received_total', 'Requests to hooks', ['outcome']);

export function openIntake(deps: Deps): Intake {
  const { db, vault, refusals, clock } = deps;
  const decoy = decoyFor(vault);

  // Who asks for a hook that does not exist waits as long as who has the wrong secret.
  async function prove(id: string, request: Request, remoteAddress: string): Promise<{ found: system.Found; signed: Buffer | undefined }> {
    const found = await system.find(db, keyOf(id));
    const { hook, sealed } = found ?? decoy;
    const owner = toBytes('hook', hook.id);
    const known = sealed.map((one) => vault.open(owner, one));
    const idHeader = hook.deliveryId.startsWith('/') ? '' : (request.headers[hook.deliveryId] ?? '');
    const verdict = verify(hook.auth as NonNullable<Hook['auth']>, known, request, idHeader, clock());
    if (!found) throw notFound('hook', id);
    if (verdict.isGenuine) return { found, signed: verdict.signed };
    refusals.note(found, verdict.why, remoteAddress);
    throw faults.unauthenticated('SIGNATURE_INVALID', 'the request does not prove that it comes from the sender of this hook');
  }

  // A request that came before is answered as it was, and starts nothing.
  async function repeated({ hook, workspace }: system.Found, earlier: string, signal: AbortSignal) {
    received.inc({ outcome: 'duplicate' });
    const known = await system.countDuplicate(db, { workspace, hookId: hook.id, id: earlier });
    const told = { deliveryId: earlier, state: known?.state ?? 'DELIVERED', executionId: known?.executionId ?? '' };
    return told.executionId && hook.synchronous ? result(deps, hook, workspace, told, signal) : accepted(told);
  }

  async function receive(id: string, request: Request, remoteAddress: string, signal: AbortSignal) {
    if (request.body.length > MAX_BODY_BYTES)
      throw fault('INVALID_ARGUMENT', 'REQUEST_TOO_LARGE', 'the body is larger than 1 MiB: send less, or a reference to it');
    const { found, signed } = await prove(id, request, remoteAddress);
    const { hook, workspace } = found;
    if (hook.disabled) throw faults.failedPrecondition('HOOK_DISABLED', `hook ${id} is disabled`, { id });
    const senderDeliveryId = deliveryIdOf(hook, request);
    const keys = keysOf(hook, senderDeliveryId, signed);
    const known = await system.holderOf(db, hook.id, keys);
    if (known) return repeated(found, known, signal);
    const shown = { ...request, headers: redacted(request.headers, hook.auth?.header) }; // credentials are for the proof alone
    const routed = await route(deps.expressions, hook, shown);
    const kept = keptOf(workspace, hook, shown, remoteAddress, routed, { senderDeliveryId });
    const earlier = await keep(deps, kept, routed.state === 'PENDING' ? keys : []); // what starts nothing may come again
    failpoint('webhooks.kept');
    if (earlier) return repeated(found, earlier, signal);
    received.inc({ outcome: routed.state.toLowerCase() });
    if (routed.state === 'FAILED' && hook.synchronous) throw mappingFailed(routed.error);
    if (routed.state !== 'PENDING')
      return { code: routed.state === 'IGNORED' ? 200 : 202, answer: { deliveryId: kept.id, state: routed.state } };
    const outcome = await start(deps, dueOf(kept, routed.input));
    if (settled(outcome)) {
      const told = { deliveryId: kept.id, state: 'DELIVERED', executionId: outcome.execution.id };
      return hook.synchronous ? result(deps, hook, workspace, told, signal) : accepted(told);
    }
    if (outcome.isFinal && hook.synchronous) throw outcome.fault;
    return accepted({ deliveryId: kept.id, state: outcome.isFinal ? 'FAILED' : 'RETRYING' });
  }
  return { receive };
}

const accepted = ({ executionId, ...told }: Answer) => ({ code: 202, answer: executionId ? { ...told, executionId } : told });

async function result(
  deps: Deps,
  hook: Hook,
  workspace: string,
  told: Required<Pick<Answer, 'deliveryId' | 'state' | 'executionId'>>,
  signal: AbortSignal,
) {
  const actor = { user: hook.runAsId, workspace };
  const execution = await ended(deps, actor, told.executionId, waitMsOf(hook), signal);
  return execution ? { code: 200, answer: { ...told, ...endOf(execution) } } : accepted(told);
}

const endOf = ({ state, output, error }: Execution) => ({
  state: execution_StateToJSON(state),
  ...(output === undefined ? {} : { output }),
  ...(error && execution_StateToJSON(state) !== 'SUCCEEDED' ? { error: { type: error.type, message: error.message } } : {}),
});

// Keeps a delivery, unless one with one of its keys is kept already: its id is answered.
export async function keep(
  { db }: Pick<Deps, 'db'>,
  kept: deliveries.Kept,
  keys: Parameters<typeof system.claimKeys>[3],
): Promise<string | undefined> {
  try {
    await db.transaction(async (tx) => {
      const earlier = await system.claimKeys(tx, kept.hookId, kept.id, keys);
      if (earlier) throw new Duplicate(earlier); // takes back the keys that were still free
      await deliveries.insert(tx, kept);
    });
    return undefined;
  } catch (error) {
    if (error instanceof Duplicate) return error.earlier;
    throw error;
  }
}

class Duplicate extends Error {
  override readonly name = 'Duplicate';
  readonly earlier: string;

  constructor(earlier: string) {
    super(`delivery ${earlier} came before`);
    this.earlier = earlier;
  }
}

export function keptOf(
  workspace: string,
  hook: Hook,
  request: Request,
  remoteAddress: string,
  routed: Routed,
  from: { senderDeliveryId: string; redeliveryOf?: string },
): deliveries.Kept {
  return {
    workspace,
    hookId: hook.id,
    id: newId('delivery'),
    state: routed.state,
    senderDeliveryId: from.senderDeliveryId,
    automationId: hook.automationId,
    revision: hook.revision,
    creatorId: hook.runAsId,
    input: routed.state === 'PENDING' ? routed.input : undefined,
    error: routed.state === 'FAILED' ? routed.error : '',
    request,
    headers: request.headers,
    remoteAddress: remoteAddress.slice(0, 64),
    redeliveryOf: from.redeliveryOf,
  };
}

export const dueOf = (kept: deliveries.Kept, input: string): system.Due => ({
  ...kept,
  input,
  attempts: 0,
  ageSeconds: 0,
  quietSeconds: 0,
});

export const mappingFailed = (error: string): Fault => faults.invalid('MAPPING_FAILED', error.replace(/^MAPPING_FAILED: /, ''));

// A hook of nobody.
function decoyFor(vault: secrets.Vault): Pick<system.Found, 'hook' | 'sealed'> {
  const id = newId('hook');
  const made = accept(Hook.fromPartial({ name: 'decoy', automationId: newId('automation') }), newId('user'), id, new Date(0));
  return { hook: made, sealed: [vault.seal(toBytes('hook', id), secrets.make())] };
}

// An id that is none is looked for like any other.
function keyOf(id: string): Buffer {
  try {
    return toBytes('hook', id);
  } catch {
    return newBytes();
  }
}
