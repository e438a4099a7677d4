// search.ts: text as words that a FULLTEXT index treats alike everywhere. The engines' own parsers skip short words and stop words, and
// split some scripts in the middle; so each word becomes one plain token that none of their rules touches.
const WORD = /\p{Script=Han}|(?:(?!\p{Script=Han})[\p{L}\p{N}])+/gu; // Han has no spaces: each character is a word
const MAX_TOKEN = 80; // InnoDB ignores tokens of more than 84 characters

// What is kept to be searched, for example `w_buy w_milk`.
export const document = (...texts: string[]): string => tokens(texts.join('\n')).join(' ');

// What finds the documents that hold all these words. Undefined when there is no word in the text: then nothing can be found.
export function expression(text: string): string | undefined {
  const all = tokens(text);
  return all.length === 0 ? undefined : all.map((token) => `+${token}`).join(' ');
}

function tokens(text: string): string[] {
  const folded = text.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase();
  return [...new Set(folded.match(WORD) ?? [])].map((word) =>
    `w_${isPlain(word) ? word : Buffer.from(word).toString('hex')}`.slice(0, MAX_TOKEN),
  );
}

const isPlain = (word: string): boolean => /^[a-z0-9]+$/.test(word);
