// diff.ts: how two texts differ, line by line, in unified format.
// Source: Myers, "An O(ND) Difference Algorithm and Its Variations", 1986; the greedy algorithm, with a bound on its work.

const CONTEXT = 3;
const MAX_WORK = 1_000_000; // steps, each with a number or two to remember: 1400 edits at most

interface Edit {
  kind: ' ' | '-' | '+';
  line: string;
}

// Empty when the texts are equal.
export function unifiedDiff(from: string, to: string, fromName: string, toName: string): string {
  if (from === to) return '';
  const hunks = hunksOf(edits(linesOf(from), linesOf(to)));
  return `--- ${fromName}\n+++ ${toName}\n${hunks.join('')}`;
}

// Lines with their ends, so that a missing last one is a difference.
const linesOf = (text: string): string[] => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];

function edits(from: string[], to: string[]): Edit[] {
  let head = 0;
  while (head < from.length && head < to.length && from[head] === to[head]) head += 1;
  let tail = 0;
  while (tail < from.length - head && tail < to.length - head && from.at(-1 - tail) === to.at(-1 - tail)) tail += 1;
  const before = from.slice(head, from.length - tail);
  const after = to.slice(head, to.length - tail);
  return [
    ...from.slice(0, head).map(kept),
    ...(shortest(before, after) ?? [...before.map(removed), ...after.map(added)]),
    ...from.slice(from.length - tail).map(kept),
  ];
}

const kept = (line: string): Edit => ({ kind: ' ', line });
const removed = (line: string): Edit => ({ kind: '-', line });
const added = (line: string): Edit => ({ kind: '+', line });

// The shortest edit script; undefined when there is too much work in it. furthest[k] is how far the furthest path on diagonal k
// (x - y) has come in `from`; one copy is kept for each number of edits, to walk back.
function shortest(before: string[], after: string[]): Edit[] | undefined {
  const [a, b] = numbered(before, after);
  const limit = a.length + b.length;
  const origin = limit + 1;
  const furthest = new Int32Array(2 * limit + 3);
  const history: Int32Array[] = [];
  let work = 0;
  for (let count = 0; count <= limit; count += 1) {
    for (let k = -count; k <= count; k += 2) {
      let x = isInsertion(furthest, origin, k, count) ? at(furthest, origin + k + 1) : at(furthest, origin + k - 1) + 1;
      let y = x - k;
      while (x < a.length && y < b.length && a[x] === b[y]) {
        x += 1;
        y += 1;
        work += 1;
      }
      work += 1;
      furthest[origin + k] = x;
      if (x >= a.length && y >= b.length) return walkBack(history, before, after);
      if (work > MAX_WORK) return undefined;
    }
    history.push(furthest.slice(origin - count, origin + count + 1));
  }
  return undefined;
}

const at = (numbers: Int32Array, index: number): number => numbers[index] ?? 0;

// Whether the furthest path to diagonal k ends with an insertion, else with a deletion.
const isInsertion = (furthest: Int32Array, origin: number, k: number, count: number): boolean =>
  k === -count || (k !== count && at(furthest, origin + k - 1) < at(furthest, origin + k + 1));

function walkBack(history: readonly Int32Array[], before: string[], after: string[]): Edit[] {
  const script: Edit[] = [];
  let x = before.length;
  let y = after.length;
  for (let count = history.length; count > 0; count -= 1) {
    const furthest = history[count - 1] as Int32Array;
    const origin = count - 1;
    const k = x - y;
    const from = isInsertion(furthest, origin, k, count) ? k + 1 : k - 1;
    const fromX = at(furthest, origin + from);
    const fromY = fromX - from;
    const kept = Math.min(x - fromX, y - fromY); // lines of the snake after the edit
    for (let line = 1; line <= kept; line += 1) script.push({ kind: ' ', line: before[x - line] ?? '' });
    script.push(from < k ? { kind: '-', line: before[fromX] ?? '' } : { kind: '+', line: after[fromY] ?? '' });
    x = fromX;
    y = fromY;
  }
  for (let line = x - 1; line >= 0; line -= 1) script.push({ kind: ' ', line: before[line] ?? '' });
  return script.reverse();
}

// Equal lines as equal numbers.
function numbered(...texts: [string[], string[]]): [Int32Array, Int32Array] {
  const numbers = new Map<string, number>();
  const number = (line: string): number => {
    const known = numbers.get(line) ?? numbers.size;
    numbers.set(line, known);
    return known;
  };
  return [Int32Array.from(texts[0], number), Int32Array.from(texts[1], number)];
}

// The edits with a few kept lines around them, each group headed by where it begins and how many lines it spans.
function hunksOf(all: readonly Edit[]): string[] {
  const hunks: string[] = [];
  let fromLine = 1;
  let toLine = 1;
  for (let index = 0; index < all.length; ) {
    let first = index;
    while (all[first]?.kind === ' ') first += 1;
    if (first === all.length) break;
    let end = first;
    for (let quiet = 0, at = first; at < all.length && quiet <= 2 * CONTEXT; at += 1) {
      quiet = all[at]?.kind === ' ' ? quiet + 1 : 0;
      if (quiet === 0) end = at + 1;
    }
    const begin = Math.max(index, first - CONTEXT);
    const stop = Math.min(all.length, end + CONTEXT);
    fromLine += begin - index;
    toLine += begin - index;
    const group = all.slice(begin, stop);
    const fromCount = group.filter(({ kind }) => kind !== '+').length;
    const toCount = group.filter(({ kind }) => kind !== '-').length;
    hunks.push(`@@ -${span(fromLine, fromCount)} +${span(toLine, toCount)} @@\n${group.map(textOf).join('')}`);
    fromLine += fromCount;
    toLine += toCount;
    index = stop;
  }
  return hunks;
}

// An empty span is named by the line before it.
const span = (line: number, count: number): string => (count === 1 ? `${line}` : `${count === 0 ? line - 1 : line},${count}`);

const textOf = ({ kind, line }: Edit): string =>
  line.endsWith('\n') ? `${kind}${line}` : `${kind}${line}\n\\ No newline at end of file\n`;
