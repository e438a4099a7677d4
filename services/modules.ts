// Every module, one line each.
import type { Module } from '#platform/module.ts';
import { module as automations } from './automations/module.ts';
import { module as dispatcher } from './executions/dispatcher/module.ts';
import { module as executions } from './executions/module.ts';
import { module as health } from './health/module.ts';
import { module as identity } from './identity/module.ts';
import { module as schedules } from './schedules/module.ts';
import { module as tasks } from './tasks/module.ts';
import { module as webhooks } from './webhooks/module.ts';

export const modules: readonly Module[] = [health, identity, tasks, automations, executions, dispatcher, schedules, webhooks];
