// ControlService: steers executions and says why they are where they are.
import type { ControlServiceService } from '#gen/millrace/executions/v1/control_service.ts';
import type { Handlers } from '#platform/handlers.ts';
import { toBytes } from '#platform/id.ts';
import type { Explain } from '../explain.ts';
import type { Hold } from '../hold.ts';
import type { Reads } from '../reads.ts';

export interface Deps {
  reads: Reads;
  explain: Explain;
  hold: Hold;
}

export const handlers = ({ reads, explain, hold }: Deps): Handlers<ControlServiceService> => ({
  async explainExecution({ id }, { caller }) {
    return explain(caller.workspace, id);
  },

  async pauseExecution({ id }, { caller }) {
    await hold.pause(toBytes('workspace', caller.workspace), toBytes('execution', id));
    return reads.get(caller.workspace, id);
  },

  async resumeExecution({ id }, { caller }) {
    await hold.resume(toBytes('workspace', caller.workspace), toBytes('execution', id));
    return reads.get(caller.workspace, id);
  },
});
