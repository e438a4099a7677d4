// events.ts: what identity publishes about accounts.
import { UserEvent } from '#gen/millrace/identity/v1/identity_event.ts';
import type { Event } from '#platform/outbox.ts';
import type { Account } from './user.ts';

const event =
  (verb: string) =>
  ({ user, version }: Account): Event => ({
    type: `user.${verb}`,
    verb,
    subject: user.id,
    workspace: user.workspaceId,
    version,
    schema: 'millrace.identity.v1.UserEvent',
    data: UserEvent.encode({ user }).finish(),
  });

export const registered = event('registered');
export const loggedIn = event('logged-in');
export const disabled = event('disabled');
export const enabled = event('enabled');
