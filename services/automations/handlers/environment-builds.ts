// handlers/environment-builds.ts: the methods of EnvironmentBuildService, in the contract's order.
import { Environment_State } from '#gen/millrace/automations/v1/environment.ts';
import type { EnvironmentBuildServiceService } from '#gen/millrace/automations/v1/environment_build_service.ts';
import type { Handlers } from '#platform/handlers.ts';
import { type Builds, LEASE_MS } from '../environment-builds.ts';

const NONE = { digest: '', epoch: 0, requirements: '', nextLine: 0, leaseMs: 0 };

export const environmentBuildHandlers = ({ builds }: { builds: Builds }): Handlers<EnvironmentBuildServiceService> => ({
  async claimEnvironmentBuild({ builderId, platform }, { signal }) {
    const claimed = await builds.claim(builderId, platform, signal);
    if (!claimed) return NONE;
    const { digest, epoch, requirements, lineCount } = claimed;
    return { digest: digest.toString('hex'), epoch, requirements, nextLine: lineCount, leaseMs: LEASE_MS };
  },

  async tellEnvironmentBuild({ digest, epoch, firstLine, lines }) {
    await builds.tell(digest, epoch, firstLine, lines);
    return {};
  },

  async endEnvironmentBuild({ digest, epoch, ...end }) {
    await builds.end(digest, epoch, end);
    return {};
  },

  async getEnvironmentBuild({ digest }) {
    const { state, error } = await builds.state(digest);
    return { state: Environment_State[state as keyof typeof Environment_State], error };
  },
});
