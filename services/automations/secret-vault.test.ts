import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { newBytes } from '#platform/id.ts';
import { openVault, type Place, parseKeys, type Sealed } from './secret-vault.ts';

describe('the vault of secrets', () => {
  const [old, present] = [
    { id: 'k1', key: randomBytes(32) },
    { id: 'k2', key: randomBytes(32) },
  ];
  const place: Place = { workspace: newBytes(), id: newBytes(), valueVersion: 3 };
  const vault = openVault([old]);

  it('opens what it sealed, each time sealed differently, and holds nothing readable', () => {
    const [one, two] = [vault.seal(place, 'pässword-1'), vault.seal(place, 'pässword-1')];
    expect([vault.open(place, one), vault.open(place, two)]).to.deep.equal(['pässword-1', 'pässword-1']);
    expect(one.sealed.equals(two.sealed) || one.wrappedKey.equals(two.wrappedKey)).to.equal(false);
    expect(one.sealed.includes('ssword')).to.equal(false);
  });

  it('opens nothing in another place, with another key, or when a bit was changed', () => {
    const kept = vault.seal(place, 'password-1');
    const elsewhere: Partial<Place>[] = [{ workspace: newBytes() }, { id: newBytes() }, { valueVersion: 2 }];
    for (const other of elsewhere) expect(() => vault.open({ ...place, ...other }, kept), Object.keys(other)[0]).to.throw();
    expect(() => openVault([{ ...old, key: randomBytes(32) }]).open(place, kept)).to.throw();
    expect(() => openVault([present]).open(place, kept)).to.throw('k1');
    for (const part of ['wrappedKey', 'sealed'] as const)
      for (const at of [0, 12, kept[part].length - 1]) {
        const changed = Buffer.from(kept[part]);
        changed[at] = (changed[at] ?? 0) ^ 1;
        expect(() => vault.open(place, { ...kept, [part]: changed }), `${part} ${at}`).to.throw();
      }
  });

  it('does not open one data key’s value by the data key of another row', () => {
    const other = { ...place, id: newBytes() };
    const [mine, theirs] = [vault.seal(place, 'password-1'), vault.seal(other, 'password-2')];
    const mixed: Sealed = { ...mine, sealed: theirs.sealed };
    expect(() => vault.open(place, mixed)).to.throw();
  });

  it('wraps anew by the present key, after which the old one is not needed', () => {
    const kept = vault.seal(place, 'password-1');
    const both = openVault([present, old]);
    expect([both.open(place, kept), both.seal(place, 'x').keyId]).to.deep.equal(['password-1', 'k2']);
    const again = both.rewrap(place, kept);
    expect([again.keyId, openVault([present]).open(place, again)]).to.deep.equal(['k2', 'password-1']);
    expect(again.sealed.equals(kept.sealed)).to.equal(true);
  });

  it('reads keys from a line each, and says what is wrong without telling a key', () => {
    const text = (id: string, bytes = 32) => `${id}:${randomBytes(bytes).toString('base64')}`;
    expect(parseKeys(`${text('new')}\n${text('old-1')},\n`).map(({ id }) => id)).to.deep.equal(['new', 'old-1']);
    const short = text('k', 31);
    expect(() => parseKeys(short))
      .to.throw(/32 bytes/)
      .with.property('message')
      .that.does.not.include(short.slice(2));
    expect(() => parseKeys(`${text('k')},${text('k')}`)).to.throw('twice');
  });
});
