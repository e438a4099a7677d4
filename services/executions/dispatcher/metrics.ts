// Figures of the dispatcher.
import { COUNTS, counter, gauge, histogram } from '#platform/metrics.ts';

export const tickets = counter('millrace_dispatcher_tickets_total', 'Tickets by what became of them', ['outcome']);
export const claims = counter('millrace_dispatcher_claims_total', 'Claim transactions by whether they found something', ['outcome']);
export const claimed = histogram('millrace_dispatcher_claimed_rows', 'Executions claimed in one transaction', [], COUNTS);
export const claimSeconds = histogram('millrace_dispatcher_claim_seconds', 'How long a claim transaction took');
export const refused = counter('millrace_dispatcher_reports_refused_total', 'Reports of servers that were not written, by why', ['why']);
export const lost = counter('millrace_dispatcher_lost_total', 'Claims whose server was lost or did not have them, by how far they were', [
  'when',
]);
export const ended = counter('millrace_dispatcher_ended_total', 'Executions that left running, by where they went', ['to']);
export const lines = counter('millrace_dispatcher_log_lines_total', 'Lines of log made durable');
export const adopted = counter('millrace_dispatcher_adopted_total', 'Claims taken over from another dispatcher or an earlier session');
export const servers = gauge('millrace_dispatcher_servers', 'Automation servers that this dispatcher owns', ['state']);
export const credits = gauge('millrace_dispatcher_credits', 'Executions that may be started now');
export const timerLateness = histogram('millrace_dispatcher_timer_lateness_seconds', 'How late timers were taken');
export const expired = counter('millrace_dispatcher_expired_total', 'Executions ended by a timeout of the engine', ['where']);
export const ready = gauge('millrace_dispatcher_ready', 'Executions that may start, as last counted');
export const readyAge = gauge('millrace_dispatcher_ready_age_seconds', 'Age of the oldest execution that may start, as last counted');
export const outputBytes = gauge('millrace_dispatcher_output_bytes', 'Output of servers that waits to be made durable');
export const compactions = counter('millrace_dispatcher_compactions_total', 'Logs of attempts whose chunks were merged');
