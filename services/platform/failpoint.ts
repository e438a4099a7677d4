// Failpoints: named places where a test lets the process die or stand still. Nothing happens unless MILLRACE_FAILPOINT names the place:
// `claim.after_ack:exit` ends the process there by SIGKILL, `claim.after_ack:exit:3` at the third passage, `:pause` stops it by SIGSTOP.

import { z } from 'zod';
import { readSettings, setting } from './config.ts';

const { at } = readSettings({ at: setting('MILLRACE_FAILPOINT', z.string().optional(), 'a place in the code to fail at, for tests') });
const [place, act, passage = '1'] = at?.split(':') ?? [];
let passed = 0;

export function failpoint(name: string): void {
  if (name !== place) return;
  passed += 1;
  if (passed === Number(passage)) process.kill(process.pid, act === 'pause' ? 'SIGSTOP' : 'SIGKILL');
}
