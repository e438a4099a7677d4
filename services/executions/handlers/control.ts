// ControlService: steers executions and says why they are where they are.
import type { ControlServiceService } from '#gen/millrace/executions/v1/control_service.ts';
import type { Handlers } from '#platform/handlers.ts';
import type { Explain } from '../explain.ts';

export interface Deps {
  explain: Explain;
}

export const handlers = ({ explain }: Deps): Handlers<ControlServiceService> => ({
  async explainExecution({ id }, { caller }) {
    return explain(caller.workspace, id);
  },
});
