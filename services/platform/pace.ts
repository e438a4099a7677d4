// How fast something comes of late: older ones count less and less.
export interface Pace {
  add(count?: number): void;
  recent(): number; // about how many came in the last `ms`
}

export function openPace(ms: number, now: () => number = () => performance.now()): Pace {
  let count = 0;
  let time = now();
  const decay = () => {
    const at = now();
    count *= Math.exp((time - at) / ms);
    time = at;
  };
  return {
    add(more = 1) {
      decay();
      count += more;
    },
    recent() {
      decay();
      return count;
    },
  };
}
