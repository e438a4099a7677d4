// Dead letters of a workspace or of the whole installation: executions and events as one resource.
import { createHash } from 'node:crypto';
import { DeadLetter, DeadLetter_Kind as Kind, DeadLetter_State as State } from '#gen/millrace/executions/v1/dead_letter.ts';
import { DeadLetterFilter, type SettleDeadLettersResponse } from '#gen/millrace/executions/v1/dead_letter_service.ts';
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import type { Pool } from '#platform/db.ts';
import { aborted, Fault, invalid, noFields, notFound, reasonsOf } from '#platform/errors.ts';
import type { Call } from '#platform/handlers.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { decodePage, encodePage } from '#platform/paging.ts';
import type { Create } from './create.ts';
import type { DeadEvents, Place } from './dead-events.ts';
import * as store from './dead-store.ts';
import { attemptOf, draftAgain, errorOf } from './execution.ts';
import type { Reads } from './reads.ts';
import { attempts, withResults } from './store.ts';

export type Scope = 'WORKSPACE' | 'PLATFORM'; // the caller's workspace; events of any
interface Page {
  letters: DeadLetter[];
  next: string;
  unreachable: string[];
}
type Input = Record<string, unknown> | undefined;
type Settle = (scope: Scope, id: string, call: Call) => Promise<DeadLetter>;
export type DeadLetters = ReturnType<typeof openDeadLetters>;

interface Deps {
  pool: Pool;
  reads: Reads;
  create: Create;
  events: DeadEvents;
}

const OWN = ''; // the source that holds executions, before the areas
const AT_ONCE = 8;
const FIELDS = ['kind', 'area', 'consumer', 'automationId', 'createTimeFrom', 'createTimeTo', 'state'];
const faults = reasonsOf<keyof typeof ErrorReason>('executions');

export function openDeadLetters({ pool, reads, create, events }: Deps) {
  const workspaceOf = ({ caller }: Call): Buffer => toBytes('workspace', caller.workspace, 'workspace');

  async function ownPage(
    call: Call,
    filter: DeadLetterFilter,
    size: number,
    token: string,
  ): Promise<{ letters: DeadLetter[]; next: string }> {
    const rows = await store.list(pool, workspaceOf(call), {
      state: stateNameOf(filter.state),
      automation: filter.automationId ? toBytes('automation', filter.automationId, 'filter.automation_id') : undefined,
      from: filter.createTimeFrom,
      to: filter.createTimeTo,
      before: token ? toBytes('execution', token, 'page_token') : undefined,
      limit: size + 1,
    });
    const letters = rows.slice(0, size).map(letterOf);
    return { letters, next: rows.length > size ? (letters.at(-1)?.id ?? '') : '' };
  }

  async function ownRow(call: Call, id: string): Promise<store.DeadRow> {
    const row = await store.find(pool, workspaceOf(call), toBytes('execution', id));
    if (!row) throw notFound('dead letter', id);
    return row;
  }

  // Source by source: a page token says where in which one the page before ended.
  async function list(scope: Scope, asked: DeadLetterFilter | undefined, size: number, pageToken: string, call: Call): Promise<Page> {
    const filter = { ...(asked ?? DeadLetterFilter.fromPartial({})), state: asked?.state || State.DEAD };
    const sources = sourcesOf(scope, filter, events.areas);
    const [from, token] = decodePage<[string, string]>(pageToken, { scope, filter }) ?? [sources[0], ''];
    const page: Page = { letters: [], next: '', unreachable: [] };
    let position = token;
    for (const source of sources.slice(Math.max(0, sources.indexOf(from ?? OWN)))) {
      const rest = size - page.letters.length;
      if (rest === 0) return { ...page, next: encodePage({ scope, filter }, [source, '']) };
      const workspace = scope === 'WORKSPACE' ? call.caller.workspace : '';
      const part =
        source === OWN
          ? { ...(await ownPage(call, filter, rest, position)), isReachable: true }
          : await events.page(source, workspace, filter, rest, position);
      position = '';
      page.letters.push(...part.letters);
      if (!part.isReachable) page.unreachable.push(source);
      if (part.next) return { ...page, next: encodePage({ scope, filter }, [source, part.next]) };
    }
    return page;
  }

  async function get(scope: Scope, id: string, call: Call): Promise<DeadLetter> {
    const place = placeOf(scope, id, call);
    if (place) return events.get(place);
    const row = await ownRow(call, id);
    const workspace = workspaceOf(call);
    const [execution, tries] = await Promise.all([reads.get(call.caller.workspace, id), attempts(pool, workspace, row.execution)]);
    return { ...letterOf(row), execution, attempts: tries.map(attemptOf) };
  }

  async function redrive(scope: Scope, id: string, call: Call, input?: Input): Promise<DeadLetter> {
    const place = placeOf(scope, id, call);
    if (place && input) throw invalid('input', 'is only for an execution');
    if (place) return events.redrive(place, call.caller.user);
    const row = await ownRow(call, id);
    if (row.state === 'DISCARDED') throw settled(row.state, id);
    if (row.redriven_as) return letterOf(row);
    const [workspace, user] = [workspaceOf(call), toBytes('user', call.caller.user, 'user')];
    if (!(await store.begin(pool, workspace, row.execution, user))) {
      const now = await ownRow(call, id);
      if (now.redriven_as) return letterOf(now);
      throw aborted(`the dead letter ${id} is being redriven at the same time: look again`);
    }
    const earlier = row.state === 'REDRIVEN' ? await store.repetitionOf(pool, workspace, row) : undefined;
    if (earlier) await store.repeated(pool, workspace, row.execution, earlier, user);
    else await repeat(row, input, call).catch((error) => store.giveBack(pool, workspace, row.execution).then(() => Promise.reject(error)));
    return letterOf(await ownRow(call, id));
  }

  // A call that repeats this one makes no second execution; create writes down that it is repeated.
  async function repeat({ execution }: store.DeadRow, input: Input, call: Call): Promise<void> {
    const id = fromBytes('execution', execution);
    const before = await reads.row(call.caller.workspace, id);
    const again = draftAgain(await withResults(pool, before.workspace, before), input);
    const requestHash = createHash('sha256')
      .update(JSON.stringify([id, input]))
      .digest();
    await create(again, { ...call, requestId: `redrive ${id}`, requestHash });
  }

  async function discard(scope: Scope, id: string, call: Call): Promise<DeadLetter> {
    const place = placeOf(scope, id, call);
    if (place) return events.discard(place, call.caller.user);
    const { execution } = await ownRow(call, id);
    await store.discard(pool, workspaceOf(call), execution, toBytes('user', call.caller.user, 'user'));
    const now = await ownRow(call, id);
    if (now.state !== 'DISCARDED') throw settled(now.state, id);
    return letterOf(now);
  }

  const settleMany =
    (settle: Settle) =>
    async (
      scope: Scope,
      filter: DeadLetterFilter | undefined,
      size: number,
      token: string,
      call: Call,
    ): Promise<SettleDeadLettersResponse> => {
      const { letters, next, unreachable } = await list(scope, mustFilter(filter), size, token, call);
      const refusals: SettleDeadLettersResponse['refusals'] = [];
      const rest = letters.values();
      const worker = async () => {
        for (const { id } of rest) {
          await settle(scope, id, call).catch((error) => {
            if (!(error instanceof Fault)) throw error;
            refusals.push({ id, reason: error.reason, message: error.message });
          });
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
      return { settledCount: letters.length - refusals.length, refusals, nextPageToken: next, unreachableAreas: unreachable };
    };

  return { list, get, redrive, discard, redriveMany: settleMany((...one) => redrive(...one)), discardMany: settleMany(discard) };
}

// Where to look: executions, then the areas' events.
function sourcesOf(scope: Scope, { kind, area, consumer, automationId }: DeadLetterFilter, areas: readonly string[]): string[] {
  const own = scope === 'WORKSPACE' && kind !== Kind.EVENT && !consumer && (area === '' || area === 'executions') ? [OWN] : [];
  const isForEvents = kind !== Kind.EXECUTION && !automationId;
  return [...own, ...(isForEvents ? areas.filter((one) => area === '' || one === area) : [])];
}

// Where an event's letter is; undefined for an execution's.
function placeOf(scope: Scope, id: string, { caller }: Call): Place | undefined {
  const [area = '', ...rest] = id.split('.');
  const eventId = rest.pop();
  if (eventId !== undefined) return { area, consumer: rest.join('.'), eventId, workspaceId: scope === 'WORKSPACE' ? caller.workspace : '' };
  if (scope === 'PLATFORM') throw notFound('dead letter', id);
  return undefined;
}

// What acts on many is not done to all by mistake.
function mustFilter(filter = DeadLetterFilter.fromPartial({})): DeadLetterFilter {
  const { kind, area, consumer, automationId, createTimeFrom, createTimeTo, state } = filter;
  if (!kind && !area && !consumer && !automationId && !createTimeFrom && !createTimeTo && !state) throw noFields(FIELDS);
  if (state === State.STATE_UNSPECIFIED || state === State.DEAD) return filter;
  const violation = { field: 'filter.state', description: 'must be DEAD' };
  throw faults.invalid('FILTER_INVALID', 'the method does not act on dead letters that are settled', [violation]);
}

const settled = (state: string, id: string): Fault =>
  faults.failedPrecondition('DEAD_LETTER_SETTLED', `the dead letter ${id} is ${state} already`, { id, state });

const NAMES = new Map(Object.entries(State).map(([name, state]) => [state, name as store.DeadRow['state']]));
const stateNameOf = (state: State): store.DeadRow['state'] => NAMES.get(state) ?? 'DEAD';

const letterOf = (row: store.DeadRow): DeadLetter => ({
  ...DeadLetter.fromPartial({
    id: fromBytes('execution', row.execution),
    kind: Kind.EXECUTION,
    state: State[row.state],
    area: 'executions',
    automationId: fromBytes('automation', row.automation),
    attemptCount: row.attempt_count,
    createTime: row.create_time,
    settlerId: row.settler ? fromBytes('user', row.settler) : '',
    redrivenAs: row.redriven_as ? fromBytes('execution', row.redriven_as) : '',
  }),
  settleTime: row.settle_time ?? undefined,
  error: errorOf(row.error),
});
