// Every module, one line each.
import type { Module } from '#platform/module.ts';
import { module as health } from './health/module.ts';

export const modules: readonly Module[] = [health];
