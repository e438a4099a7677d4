import { expect } from 'chai';
import { Fault } from '#platform/errors.ts';
import { accept, digestOf, linesOf } from './environment.ts';

const [ONE, TWO] = ['a'.repeat(64), 'b'.repeat(64)];
const accepted = (requirements: string, name = 'data') => accept({ name, requirements });

// What is refused: the field and the words of each problem.
function problemsOf(requirements: string): Record<string, string> {
  try {
    accepted(requirements);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    expect(error.reason).to.equal('ENVIRONMENT_INVALID');
    return Object.fromEntries(
      error.violations.map(({ field, description }) => [field.replace('environment.requirements', ''), description]),
    );
  }
  throw new Error('nothing was refused');
}

describe('the requirements of an environment', () => {
  it('are read as pip reads its files, and mean the same whatever their order, comments and spelling', () => {
    const file = `# what we use
six==1.16.0 \\
    --hash=sha256:${TWO} \\
    # the wheel
    --hash=sha256:${ONE}   # and another

Zope.Interface[Test, docs]==5.4 ; python_version < "4" --hash=sha256:${ONE}\r
`;
    const { normal } = accepted(file);
    expect(normal.split('\n')).to.deep.equal([
      `six==1.16.0 --hash=sha256:${ONE} --hash=sha256:${TWO}`,
      `zope-interface[docs,test]==5.4 ; python_version < "4" --hash=sha256:${ONE}`,
    ]);
    const again = accepted(
      `zope_interface[docs,test]==5.4; python_version < "4" --hash=sha256:${ONE}\nsix==1.16.0 --hash sha256:${ONE} --hash=sha256:${TWO}`,
    );
    expect(again.normal).to.equal(normal);
    expect(linesOf(file)).to.deep.equal([2, 7]);
  });

  it('decide the digest together with the platform', () => {
    const [six, other] = [accepted(`six==1.16.0 --hash=sha256:${ONE}`).normal, accepted(`six==1.16.0 --hash=sha256:${TWO}`).normal];
    expect(digestOf(six, 'x')).to.deep.equal(digestOf(six, 'x'));
    expect([digestOf(six, 'y'), digestOf(other, 'x')]).not.to.deep.include(digestOf(six, 'x'));
  });

  it('are refused line by line', () => {
    const hash = `--hash=sha256:${ONE}`;
    const problems = problemsOf(
      [
        `six ${hash}`,
        `six>=1.0 ${hash}`,
        'six==1.0',
        `six==1.* ${hash}`,
        `six==1.0 --hash=md5:${ONE}`,
        `six @ https://example.com/six.whl ${hash}`,
        '--index-url https://example.com/simple',
        '-r other.txt',
        `six==1.0 ${hash} --config-settings=a=b`,
        `https://example.com/six.whl ${hash}`,
        `good==1.0 ${hash}`,
        `GOOD==2.0 ${hash}`,
        './six.whl',
        `six===1.0 ${hash}`,
      ].join('\n'),
    );
    expect(Object.keys(problems)).to.deep.equal(
      ['1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '12', '13', '14'].map((line) => `:${line}`),
    );
    expect(problems[':1']).to.include('is not pinned');
    expect(problems[':3']).to.include('has no hash');
    expect(problems[':5']).to.include('is not sha256');
    expect(problems[':6']).to.include('has an address');
    expect(problems[':7']).to.include('options such as --index-url');
    expect(problems[':12']).to.include('stands in line 11 already');
    expect(problemsOf('# nothing\n')).to.deep.equal({ '': 'there are no libraries' });
  });

  it('hold nothing that pip would take for an option', () => {
    for (const text of [
      `six==1.0;--index-url=http://x --hash=sha256:${ONE}`,
      `six==1.0 -r x --hash=sha256:${ONE}`,
      `six==1.0\u2028-r x --hash=sha256:${ONE}`,
    ])
      expect(Object.keys(problemsOf(text))).to.deep.equal([':1']);
  });

  it('may name a library twice for different surroundings', () => {
    const both = `six==1.0 ; python_version < "3" --hash=sha256:${ONE}\nsix==2.0 ; python_version >= "3" --hash=sha256:${ONE}`;
    expect(accepted(both).normal.split('\n')).to.have.length(2);
  });

  it('need a name other than base', () => {
    for (const name of ['', 'base']) expect(() => accepted(`six==1.0 --hash=sha256:${ONE}`, name)).to.throw(Fault, 'environment.name');
  });
});
