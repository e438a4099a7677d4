import { expect } from 'chai';
import { networkOf, ofAccount, ofAddress } from './attempt.ts';
import { judge, open, type Presented, seal, secretOf, tokenOf, type Verdict } from './session.ts';
import { signInName, usernameFrom } from './user.ts';

describe('attempts', () => {
  it('of an account count for every name of it, those of an unknown name for that name', () => {
    expect(ofAccount('usr_1', 'a').key).to.deep.equal(ofAccount('usr_1', 'b').key);
    expect(ofAccount(undefined, 'Nobody').key).to.deep.equal(ofAccount(undefined, 'nobody').key);
    expect(ofAccount(undefined, 'usr_1').key).not.to.deep.equal(ofAccount('usr_1', '').key);
  });

  it('from an address count for what one subscriber has', () => {
    const networks = [
      '203.0.113.7',
      '203.0.113.7:5123',
      '::ffff:203.0.113.7',
      '2001:db8:1:2:3:4:5:6',
      '[2001:DB8:1:2::9]:443',
      '2001:db8::1',
    ].map(networkOf);
    const one = '203.0.113.7';
    expect(networks).to.deep.equal([one, one, one, '2001:db8:1:2::/64', '2001:db8:1:2::/64', '2001:db8:0:0::/64']);
    for (const own of ['127.0.0.1:80', '::1', '[::1]:80', 'unknown', '']) expect(ofAddress(own), own).to.equal(undefined);
  });
});

describe('a presented refresh token', () => {
  const replay = Buffer.from('sealed');
  const fresh: Presented = { hasExpired: false, endReason: undefined, isUsed: false, replay: undefined };

  it('is judged by what became of its session and of itself', () => {
    const cases: [Partial<Presented>, Verdict][] = [
      [{}, 'ROTATE'],
      [{ isUsed: true, replay }, 'REPLAY'],
      [{ isUsed: true }, 'REUSED'],
      [{ hasExpired: true }, 'REFUSED'],
      [{ hasExpired: true, isUsed: true, replay }, 'REFUSED'],
      [{ endReason: 'SIGNED_OUT', isUsed: true }, 'REFUSED'],
      [{ endReason: 'USER_DISABLED' }, 'REFUSED'],
      [{ endReason: 'TOKEN_REUSED' }, 'REFUSED_AS_REUSED'],
    ];
    for (const [more, verdict] of cases) expect(judge({ ...fresh, ...more }), JSON.stringify(more)).to.equal(verdict);
  });

  it('alone opens its sealed successor', () => {
    const [used, successor, nonce] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2), Buffer.alloc(12, 3)];
    const sealed = seal(successor, used, 'ses_1', nonce);
    expect(sealed.includes(successor)).to.equal(false);
    expect(open(sealed, used, 'ses_1')).to.deep.equal(successor);
    expect(() => open(sealed, Buffer.alloc(32, 4), 'ses_1')).to.throw();
    expect(() => open(sealed, used, 'ses_2')).to.throw();
    expect(secretOf(tokenOf(used))).to.deep.equal(used);
  });
});

describe('names', () => {
  it('to sign in with are addresses or usernames, in any case', () => {
    expect(signInName('Ada')).to.deep.equal({ column: 'username', value: 'ada' });
    expect(signInName('Ada@Example.com')).to.deep.equal({ column: 'email', value: 'ada@example.com' });
    expect(signInName('ädä')).to.equal(undefined);
  });

  it('are made of addresses', () => {
    expect(['grace@x.org', 'G.Hopper+tag@x.org', '4u@x.org', 'a@x.org'].map(usernameFrom)).to.deep.equal([
      'grace',
      'g.hoppertag',
      'admin-4u',
      'admin-a',
    ]);
  });
});
