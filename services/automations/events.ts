// events.ts: what is published when automations change.
import type { Automation } from '#gen/millrace/automations/v1/automation.ts';
import { AutomationEvent } from '#gen/millrace/automations/v1/automation_event.ts';
import type { Event } from '#platform/outbox.ts';
import { summaryOf } from './automation.ts';

// Who did it, and where.
export interface Actor {
  user: string;
  workspace: string;
}

export const created = (automation: Automation, actor: Actor): Event => event('created', automation, actor);

export const changed = (before: Automation, after: Automation, actor: Actor): Event =>
  event(after.publishedRevision === before.publishedRevision ? 'updated' : 'published', after, actor);

// The last event of an automation: a version beyond those of its changes, so that no consumer takes an older one for newer.
export const deleted = (automation: Automation, actor: Actor): Event => ({
  ...event('deleted', automation, actor),
  version: automation.version + 1,
});

function event(verb: string, automation: Automation, { user, workspace }: Actor): Event {
  const data = AutomationEvent.encode({ automation: summaryOf(automation), workspaceId: workspace, actorId: user }).finish();
  const schema = 'millrace.automations.v1.AutomationEvent';
  return { type: `automation.${verb}`, verb, subject: automation.id, workspace, version: automation.version, schema, data };
}
