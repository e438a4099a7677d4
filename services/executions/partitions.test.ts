import { expect } from 'chai';
import { addWeeks, byWeek, dropWeeks, weeksBefore } from './partitions.ts';

describe('partitions by week', () => {
  const monday = new Date('2026-03-02T00:00:00Z');

  it('has one for what is older, nine weeks, and one for what is later', () => {
    const sql = byWeek('id', monday);
    expect(sql.match(/PARTITION w\d{8}/g)).to.deep.equal(
      ['20260302', '20260309', '20260316', '20260323', '20260330', '20260406', '20260413', '20260420', '20260427'].map(
        (day) => `PARTITION w${day}`,
      ),
    );
    expect(sql).to.include(`PARTITION older VALUES LESS THAN (x'${monday.getTime().toString(16).padStart(12, '0')}${'0'.repeat(20)}')`);
    expect(sql).to.include('PARTITION later VALUES LESS THAN (MAXVALUE)');
  });

  it('adds what is missing a week later, and nothing twice', () => {
    const names = byWeek('id', monday).match(/w\d{8}/g) ?? [];
    expect(addWeeks('executions', names, new Date('2026-03-08T23:59:59Z'))).to.equal(undefined);
    const sql = addWeeks('executions', names, new Date('2026-03-09T00:00:00Z'));
    expect(sql).to.match(/^ALTER TABLE executions REORGANIZE PARTITION later INTO \(PARTITION w20260504 /);
    expect(sql?.match(/w\d{8}/g)).to.have.length(1);
  });

  it('drops the weeks that are wholly past, and what is older than all with the first', () => {
    const names = ['older', ...(byWeek('id', monday).match(/w\d{8}/g) ?? []), 'later'];
    expect(weeksBefore(names, new Date('2026-03-08T23:59:59Z'))).to.deep.equal([]);
    expect(weeksBefore(names, new Date('2026-03-16T00:00:00Z'))).to.deep.equal(['older', 'w20260302', 'w20260309']);
    expect(dropWeeks('attempts', ['w20260309', 'later'], ['w20260302', 'w20260309'])).to.equal(
      'ALTER TABLE attempts DROP PARTITION w20260309',
    );
    expect(dropWeeks('attempts', ['later'], ['w20260302'])).to.equal(undefined);
  });
});
