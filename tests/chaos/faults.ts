// Does what a plan says to a rig, and measures how long a part that was killed is away.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Fault, PARTS, type PartName, type Step, thingOf } from './plan.ts';
import type { Rig } from './rig.ts';

export interface Recovery {
  part: PartName;
  ms: number; // from its death until it is ready again
}
interface Told {
  begun(step: Step): void;
  recovered(recovery: Recovery): void;
}

const AT_ONCE = 3;
const START_MS = 300_000; // a part may miss what it needs while it starts, such as room on its disk
const START_EVERY_MS = 250;
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export async function perform(rig: Rig, plan: readonly Step[], told: Told): Promise<void> {
  const busy = new Map<string, Promise<void>>();
  for (const step of plan) {
    await sleep(step.afterMs);
    while (busy.size >= AT_ONCE) await Promise.race(busy.values());
    const thing = thingOf(step);
    await busy.get(thing);
    told.begun(step);
    const work = one(rig, step, told).finally(() => busy.delete(thing));
    work.catch(() => undefined); // who waits for it below hears of it
    busy.set(thing, work);
  }
  await Promise.all(busy.values());
  for (const part of PARTS) await rig.stack.ready(part);
}

async function one({ stack, links, disk }: Rig, fault: Fault, told: Told): Promise<void> {
  const since = performance.now();
  switch (fault.what) {
    case 'kill': {
      await stack.kill(fault.part);
      await startAgain({ stack }, fault.part);
      return told.recovered({ part: fault.part, ms: performance.now() - since });
    }
    case 'stop': {
      stack.signal(fault.part, 'SIGSTOP');
      await sleep(fault.ms);
      return stack.signal(fault.part, 'SIGCONT');
    }
    case 'cut': {
      links[fault.link].cut(fault.how);
      await sleep(fault.ms);
      return links[fault.link].mend();
    }
    case 'wipe': {
      await stack.kill('broker');
      await stack.halt('broker');
      rmSync(join(stack.layout.data, 'nats', 'jetstream'), { recursive: true, force: true });
      await startAgain({ stack }, 'broker');
      return told.recovered({ part: 'broker', ms: performance.now() - since });
    }
    case 'fill': {
      disk?.fill();
      await sleep(fault.ms);
      return disk?.free();
    }
  }
}

// At once, without the launcher's growing pause: how it grows is not what is tried here.
async function startAgain({ stack }: Pick<Rig, 'stack'>, part: PartName): Promise<void> {
  for (const end = performance.now() + START_MS; ; ) {
    try {
      return await stack.restart(part);
    } catch (error) {
      if (performance.now() > end) throw error;
      await sleep(START_EVERY_MS);
    }
  }
}
