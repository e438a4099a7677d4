// Tags order what waits in a lane: microseconds of this process's clock, and always more than the last one.
let last = 0;

export function nextTag(): number {
  last = Math.max(last + 1, Date.now() * 1000);
  return last;
}
