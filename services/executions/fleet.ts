// What runs executions, looked at once a second at most.
import type { Fleet } from './execution.ts';

export type LookAtFleet = () => Promise<Fleet>;

const VIEW_MS = 1000;

export function openFleet(look: LookAtFleet): LookAtFleet {
  let view: Promise<Fleet> | undefined;
  let viewUntil = 0;
  return () => {
    if (view && performance.now() <= viewUntil) return view;
    viewUntil = performance.now() + VIEW_MS;
    const looked = look();
    looked.catch(() => {
      if (view === looked) view = undefined; // the next one looks again
    });
    view = looked;
    return looked;
  };
}
