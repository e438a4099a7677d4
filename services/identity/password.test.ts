import { expect } from 'chai';
import { weakness } from './password.ts';
import { BASES, COMMON } from './weak-passwords.ts';

const owner = { username: 'margaret', email: 'peggy.h@example.com' };

describe('a password', () => {
  it('is weak when it is among the first that anyone would try', () => {
    const weak = {
      'repeats a few characters': ['aaaaaaaaaa', 'ababababab', '1111111111', '0000000001'],
      'repeats one short part': ['xk7!xk7!xk7!', 'k9?dk9?dk9?d'],
      'follows the alphabet, the digits or the keyboard': [
        '1234567890',
        'abcdefghij',
        'qwertyuiop',
        'poiuytrewq',
        'asdfghjkl;',
        '1qaz2wsx3edc',
        'abcdef123456',
      ],
      'is one of the most common ones': ['correcthorsebatterystaple', 'iloveyouforever', 'Harrypotter1', 'p@ssw0rd1234'],
      'is a common word with something around it': ['Password!!2031', '!!!Welcome!!!', 'secret_998877', 'Dr@gon-2029-!', 'summer#98765'],
      'contains your username': ['xxMargaretxx77', 'm4rg4r3t-rules'],
      'contains your address': ['go peggy.h go go'],
    };
    for (const [why, passwords] of Object.entries(weak)) {
      for (const password of passwords) expect(weakness(password, owner), password).to.equal(why);
    }
    expect(weakness('bob!!!!!!!!!!123456', { username: 'bob', email: 'r@example.com' })).to.equal(
      'is your username with something around it',
    );
  });

  it('is not weak for being long, plain, or in another language', () => {
    const strong = [
      'violet tram 42 over the hill',
      'bobsled river nine',
      'gT7#kq0-Zw',
      'снег идёт второй день',
      'zwölf Boxkämpfer jagen',
      '9f86d081884c7d65',
      'my dragon eats summer',
    ];
    for (const password of strong) expect(weakness(password, { username: 'bob', email: 'al@example.com' }), password).to.equal(undefined);
  });

  it('is looked up in lists that are long enough to matter and free of what the contract refuses anyway', () => {
    expect(COMMON.size).to.be.above(300);
    expect([...COMMON].filter((one) => one.length < 10 || one !== one.toLowerCase())).to.deep.equal([]);
    expect([...BASES].filter((one) => !/^\p{Ll}+$/u.test(one))).to.deep.equal([]);
  });
});
