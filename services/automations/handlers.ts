// handlers.ts: the methods of AutomationService.
import type { AutomationServiceService } from '#gen/millrace/automations/v1/automation_service.ts';
import type { Handlers } from '#platform/handlers.ts';
import type { Deps } from './change.ts';
import { automationHandlers } from './handlers/automations.ts';
import { revisionHandlers } from './handlers/revisions.ts';

export const handlers = (deps: Deps): Handlers<AutomationServiceService> => ({ ...automationHandlers(deps), ...revisionHandlers(deps) });
