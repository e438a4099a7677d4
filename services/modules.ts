// Every module, one line each.
import type { Module } from '#platform/module.ts';
import { module as health } from './health/module.ts';
import { module as tasks } from './tasks/module.ts';

export const modules: readonly Module[] = [health, tasks];
