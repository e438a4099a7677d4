// What is said once the stack runs.
import { writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import manifest from '../../package.json' with { type: 'json' };
import { edgeEnvironment } from './environment.ts';
import { REPOSITORY } from './layout.ts';
import { FIRST_PUBLIC } from './ports.ts';
import { ADMIN_EMAIL } from './secrets.ts';
import type { Stack } from './stack.ts';

const shown = (path: string): string => {
  const near = relative(process.cwd(), path);
  return near.startsWith('..') ? path : near;
};

export function bannerOf(stack: Stack): string {
  const { urls, wiring: w, layout } = stack;
  const ready = stack.parts.map((name) => ({ name, ...stack.status(name).ready }));
  const versions = [`Millrace ${manifest.version}`, ...new Set(ready.flatMap(({ version }) => version ?? []))];
  const port = Number(w.edgeAddress.slice(w.edgeAddress.lastIndexOf(':') + 1));
  const moved = !w.choices.edgeAddress && port !== FIRST_PUBLIC ? `   (port ${FIRST_PUBLIC} is taken by another program)` : '';
  const lines: [string, string][] = [
    ['REST, gRPC, gRPC-Web', `${urls.base}${moved}`],
    ['Health', `${urls.base}/health`],
    ...(edgeEnvironment(w).MILLRACE_EDGE_METRICS === 'true' ? [['Metrics', `${urls.base}/metrics`] as [string, string]] : []),
    ['Data', shown(layout.data)],
    ['Logs', `${shown(layout.logs)} (make logs)`],
    ['Versions', versions.join(', ')],
    ...ready.flatMap(({ name, note }): [string, string][] => (note ? [[w.automations.includes(name) ? 'Sandbox' : name, note]] : [])),
    ['First login', `${w.outer.MILLRACE_IDENTITY_ADMIN_EMAIL ?? ADMIN_EMAIL}, password in ${shown(w.secrets.adminPasswordFile)}`],
    ['Next', `make demo, or: source ${shown(layout.env)} && curl $BASE/health`],
  ];
  const width = Math.max(...lines.map(([key]) => key.length));
  return ['', 'Millrace is running', ...lines.map(([key, value]) => `  ${key.padEnd(width)}  ${value}`), ''].join('\n');
}

// Shell variables for the examples of the README.
export function writeShellVariables({ urls, layout }: Stack): void {
  const lines = [
    `export HOST=${urls.host}`,
    `export BASE=${urls.base}`,
    `export RUNNER=${urls.runner}`,
    `export PATH="${join(REPOSITORY, 'build/tools')}:$PATH"`,
  ];
  writeFileSync(layout.env, `${lines.join('\n')}\n`);
}
