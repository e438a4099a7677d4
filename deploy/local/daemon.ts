// The launcher's process: one stack from start to stop, in the background or in the foreground.
import { bannerOf, writeShellVariables } from './banner.ts';
import { type PartReport, type Report, take } from './control.ts';
import { readChoices } from './environment.ts';
import { tellFault } from './faults.ts';
import { layoutOf, makeFolders } from './layout.ts';
import { keepEnvironment } from './migrations.ts';
import { publicPort } from './ports.ts';
import { memoryOf } from './process-table.ts';
import { type Stack, startStack } from './stack.ts';
import { chosenEdge } from './wire.ts';

// What the launcher tells the command that started it.
export type Message = { line: string } | { banner: string } | { fault: string } | { other: true };

// Runs until told to stop; answers the exit status.
export async function serve(tell: (message: Message) => void): Promise<number> {
  const choices = readChoices();
  const layout = layoutOf(choices.home);
  makeFolders(layout);
  const stop = new AbortController();
  const stopped = new Promise<void>((resolve) => stop.signal.addEventListener('abort', () => resolve()));
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(name, () => stop.abort());
  process.on('disconnect', () => stack || stop.abort()); // `make up` was interrupted before it was done

  let stack: Stack | undefined;
  let banner = '';
  const control = await take(layout.root, () => reportOf(stack, banner));
  if (!control) {
    tell({ other: true });
    return 1;
  }
  const say = (line: string) => tell({ line });
  try {
    const edgeAddress = (await chosenEdge(choices)) ?? `127.0.0.1:${await publicPort()}`;
    stack = await startStack({
      dataDir: layout.root,
      edgeAddress,
      say,
      signal: stop.signal,
      ...(choices.publicUrl ? { publicUrl: choices.publicUrl } : {}),
    });
    writeShellVariables(stack);
    keepEnvironment(layout, stack.env);
    banner = bannerOf(stack);
    tell({ banner });
    await stopped;
    await stack.stop();
    say('stopped');
    return 0;
  } catch (error) {
    tell({ fault: tellFault(error) });
    return 1;
  } finally {
    control.close();
  }
}

async function reportOf(stack: Stack | undefined, banner: string): Promise<Report> {
  const parts = await Promise.all((stack?.parts ?? []).map((name) => partReport(stack as Stack, name)));
  return { pid: process.pid, isReady: banner !== '', banner, parts };
}

async function partReport(stack: Stack, name: string): Promise<PartReport> {
  const { state, pid, restarts, since } = stack.status(name);
  const complaint = await stack.complaint(name);
  return {
    name,
    state: complaint ? 'unwell' : state,
    pid,
    address: stack.address(name),
    restarts,
    upSeconds: pid === undefined ? 0 : Math.round((Date.now() - since) / 1000),
    memoryMib: pid === undefined ? 0 : memoryOf(pid),
    complaint,
  };
}
