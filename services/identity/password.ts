// password.ts: which passwords are refused because they are among the first that anyone would try.
import { BASES, COMMON } from './weak-passwords.ts';

interface Owner {
  username: string;
  email: string;
}

const KEYBOARD = [
  'abcdefghijklmnopqrstuvwxyz',
  '01234567890',
  'qwertyuiop[]',
  'qwertzuiop',
  'azertyuiop',
  "asdfghjkl;'",
  'zxcvbnm,./',
  '!@#$%^&*()',
  '1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p',
  'q1w2e3r4t5y6u7i8o9p0',
];
const STEPS = new Set(KEYBOARD.flatMap((row) => [...row].flatMap((char, at) => pair(char, row[at + 1]))));
const LOOKALIKES: Record<string, string> = { '0': 'o', '1': 'l', '3': 'e', '4': 'a', '5': 's', '7': 't', '@': 'a', $: 's', '!': 'i' };

const MIN_DIFFERENT = 4;
const MIN_NAME = 4; // shorter names stand in too many words by accident
const LONGEST_UNIT = 4;
const MEAN_RUN = 3;

// Why a password is weak, as the end of a sentence that begins with "the password"; undefined when it is not known to be.
export function weakness(password: string, owner: Owner): string | undefined {
  const folded = password.normalize('NFKC').toLowerCase();
  const plain = unlike(folded);
  for (const [what, name] of [
    ['username', owner.username.toLowerCase()],
    ['address', owner.email.toLowerCase().split('@')[0] ?? ''],
  ] as const) {
    if (name.length >= MIN_NAME && (folded.includes(name) || plain.includes(name))) return `contains your ${what}`;
    if (core(folded) === name) return `is your ${what} with something around it`;
  }
  if (new Set(folded).size < MIN_DIFFERENT) return 'repeats a few characters';
  if (isRepetition(folded)) return 'repeats one short part';
  if (isSequence(folded)) return 'follows the alphabet, the digits or the keyboard';
  if (COMMON.has(folded) || COMMON.has(plain)) return 'is one of the most common ones';
  if (BASES.has(core(folded)) || BASES.has(unlike(core(folded)))) return 'is a common word with something around it';
  return undefined;
}

// Letters where digits and signs that look like them stand.
const unlike = (text: string): string => text.replaceAll(/[013457@$!]/g, (char) => LOOKALIKES[char] ?? char);

// Without the digits and signs before and after.
const core = (text: string): string => text.replace(/^[^\p{L}]+/u, '').replace(/[^\p{L}]+$/u, '');

function isRepetition(text: string): boolean {
  for (let unit = 1; unit <= LONGEST_UNIT; unit++) {
    if (
      text ===
      text
        .slice(0, unit)
        .repeat(Math.ceil(text.length / unit))
        .slice(0, text.length)
    )
      return true;
  }
  return false;
}

// Runs of neighbouring keys or letters of a mean length of three and more.
function isSequence(text: string): boolean {
  let runs = 1;
  for (let at = 1; at < text.length; at++) {
    const step = text.slice(at - 1, at + 1);
    if (step[0] !== step[1] && !STEPS.has(step)) runs++;
  }
  return runs * MEAN_RUN <= text.length;
}

function pair(one: string, other: string | undefined): string[] {
  return other === undefined ? [] : [one + other, other + one];
}
