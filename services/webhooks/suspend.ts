// suspend.ts: disables what acts for a user who was disabled: nothing runs for them any more, and nothing is told to whom they chose.
import type { Consumer } from '#platform/consumer.ts';
import type { Db } from '#platform/db.ts';
import { toBytes } from '#platform/id.ts';

export const usersDisabled = (db: Db): Consumer => ({
  name: 'webhooks-users',
  area: 'identity',
  types: ['user.disabled'],
  db,
  async handle(tx, { subject }) {
    const user = toBytes('user', subject);
    const changed = { disabled: true, update_time: tx.raw('utc_timestamp(6)'), version: tx.raw('version + 1') };
    await tx('hooks').where({ disabled: false }).whereRaw('coalesce(run_as, creator) = ?', [user]).update(changed);
    await tx('event_subscriptions')
      .where({ disabled: false, creator: user })
      .update({ ...changed, disabled_reason: 'its creator was disabled' });
  },
});
