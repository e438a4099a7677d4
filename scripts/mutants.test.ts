import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { mutants } from './mutants.ts';

const text = (file: string) => readFileSync(join(import.meta.dirname, '..', file), 'utf8');

describe('the list of mutants', () => {
  for (const { name, file, edits, test, case: title } of mutants) {
    it(`fits the code: ${name}`, () => {
      for (const [from, to] of edits) {
        expect(text(file).split(from), `${file}: ${from}`).to.have.length(2);
        expect(to).not.to.equal(from);
      }
      expect(text(test)).to.include(title);
    });
  }
});
