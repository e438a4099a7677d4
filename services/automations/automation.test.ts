import { expect } from 'chai';
import fc from 'fast-check';
import { Automation } from '#gen/millrace/automations/v1/automation.ts';
import { newId } from '#platform/id.ts';
import { often } from '../../tests/long.ts';
import { refusal } from '../../tests/refusal.ts';
import * as automation from './automation.ts';

const NOW = new Date('2026-01-02T03:04:05.678Z');
const LATER = new Date('2026-01-02T03:05:00.000Z');
const user = newId('user');
const draft = (fields: Partial<Automation> = {}): Automation => Automation.fromPartial({ name: 'Invoices', ...fields } as Automation);
const made = (fields: Partial<Automation> = {}): Automation => ({
  ...automation.accept(draft(), user, newId('automation'), NOW),
  ...fields,
});

describe('an automation', () => {
  it('gets what the server sets, whatever the draft says of it', () => {
    const id = newId('automation');
    const claimed = draft({
      id: 'mine',
      latestRevision: 3,
      publishedRevision: 2,
      version: 9,
      creatorId: 'me',
      inputSchema: {},
      labels: { team: 'a' },
    });
    const accepted = automation.accept(claimed, user, id, NOW);
    expect(accepted).to.include({ id, latestRevision: 0, publishedRevision: 0, version: 1, creatorId: user, inputSchema: undefined });
    expect(accepted.labels).to.deep.equal({ team: 'a' });
  });

  it('needs a name, when made and when changed, and a refusal names the fields that are known', () => {
    for (const act of [
      () => automation.accept(draft({ name: ' ' }), user, newId('automation'), NOW),
      () => automation.update(made(), draft({ name: '' }), ['name'], LATER),
    ]) {
      const { reason, violations, metadata } = refusal(act);
      expect({ reason, field: violations[0]?.field, fields: metadata.fields }).to.deep.equal({
        reason: 'FIELD_INVALID',
        field: 'automation.name',
        fields: 'name,description,disabled,labels',
      });
    }
  });

  it('changes what an update names and nothing else, and stays as it is when nothing differs', () => {
    const full = made({ description: 'd', disabled: true, labels: { a: 'b' } });
    const change = draft({ name: 'Bills', description: '', disabled: false, labels: {} });
    expect(automation.update(full, change, ['name'], LATER)).to.deep.equal({ ...full, name: 'Bills', version: 2, updateTime: LATER });
    expect(automation.update(full, change, ['disabled', 'labels'], LATER)).to.deep.include({
      disabled: false,
      labels: {},
      description: 'd',
    });
    expect(automation.update(full, draft({ labels: { a: 'b' } }), ['labels', 'name'], LATER)).to.equal(full);
  });

  it('publishes the newest revision, or one that exists', () => {
    expect(refusal(() => automation.revisionToPublish(made(), 0)).reason).to.equal('NO_REVISION');
    const revised = automation.revised(automation.revised(made(), NOW), LATER);
    expect(revised).to.include({ latestRevision: 2, version: 3, publishedRevision: 0 });
    expect(automation.revisionToPublish(revised, 0)).to.equal(2);
    expect(automation.revisionToPublish(revised, 1)).to.equal(1);
    expect(refusal(() => automation.revisionToPublish(revised, 3)).reason).to.equal('RESOURCE_NOT_FOUND');
  });

  it('goes back through what was published, by any sequence of publications and returns', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.integer({ min: 1, max: 4 }), fc.constant('back' as const)), { maxLength: 40 }), (steps) => {
        const history: automation.Publication[] = [];
        const expected: number[] = []; // a stack: publishing pushes, going back pops
        for (const step of steps) {
          const present = history.at(-1);
          if (step === 'back') {
            const parent = history.find(({ sequence }) => sequence === present?.parent);
            if (expected.length < 2) {
              expect(refusal(() => automation.rollback('a', present, parent)).reason).to.equal('NO_REVISION');
              continue;
            }
            history.push(automation.rollback('a', present, parent));
            expected.pop();
          } else {
            if (present?.revision === step) continue; // publishing what is published changes nothing
            history.push(automation.publication(present, step));
            expected.push(step);
          }
          expect(history.at(-1)?.revision).to.equal(expected.at(-1));
          expect(history.at(-1)?.sequence).to.equal(history.length);
        }
      }),
      often('publications and returns'),
    );
  });
});
