import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { newBytes } from '#platform/id.ts';
import * as secrets from './secrets.ts';

describe('sealed secrets', () => {
  const key = randomBytes(32);
  const vault = secrets.openVault(key);
  const owner = newBytes();

  it('open for their owner, each time sealed differently', () => {
    const secret = secrets.make();
    const [one, two] = [vault.seal(owner, secret), vault.seal(owner, secret)];
    expect([vault.open(owner, one), vault.open(owner, two)]).to.deep.equal([secret, secret]);
    expect(one.equals(two)).to.equal(false);
    expect(vault.open(owner, vault.seal(owner, 'é'))).to.equal('é');
  });

  it('open for nobody else, with no other key, and not when a bit was changed', () => {
    const sealed = vault.seal(owner, secrets.make());
    expect(() => vault.open(newBytes(), sealed)).to.throw();
    expect(() => secrets.openVault(randomBytes(32)).open(owner, sealed)).to.throw();
    for (const at of [0, 12, sealed.length - 1]) {
      const changed = Buffer.from(sealed);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(() => vault.open(owner, changed), `byte ${at}`).to.throw();
    }
  });

  it('are made with 256 bits by chance', () => {
    const made = new Set(Array.from({ length: 100 }, secrets.make));
    expect(made.size).to.equal(100);
    for (const secret of made) expect(Buffer.from(secret.replace('whsec_', ''), 'base64')).to.have.length(32);
  });
});
