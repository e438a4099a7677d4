// DeadLetterService and PlatformDeadLetterService: what was given up, and what becomes of it.
import type { DeadLetterServiceService } from '#gen/millrace/executions/v1/dead_letter_service.ts';
import type { PlatformDeadLetterServiceService } from '#gen/millrace/executions/v1/platform_dead_letter_service.ts';
import type { Handlers } from '#platform/handlers.ts';
import { pageSize } from '#platform/paging.ts';
import type { DeadLetters } from '../dead-letters.ts';

export interface Deps {
  letters: DeadLetters;
}

const MANY = 100;

export const handlers = ({ letters }: Deps): Handlers<DeadLetterServiceService> => ({
  async listDeadLetters({ filter, pageSize: size, pageToken }, call) {
    const page = await letters.list('WORKSPACE', filter, pageSize(size), pageToken, call);
    return { deadLetters: page.letters, nextPageToken: page.next, unreachableAreas: page.unreachable };
  },

  async getDeadLetter({ id }, call) {
    return letters.get('WORKSPACE', id, call);
  },

  async redriveDeadLetter({ id, input }, call) {
    return letters.redrive('WORKSPACE', id, call, input);
  },

  async discardDeadLetter({ id }, call) {
    return letters.discard('WORKSPACE', id, call);
  },

  async redriveDeadLetters({ filter, pageSize: size, pageToken }, call) {
    return letters.redriveMany('WORKSPACE', filter, size || MANY, pageToken, call);
  },

  async discardDeadLetters({ filter, pageSize: size, pageToken }, call) {
    return letters.discardMany('WORKSPACE', filter, size || MANY, pageToken, call);
  },
});

export const platformHandlers = ({ letters }: Deps): Handlers<PlatformDeadLetterServiceService> => ({
  async listPlatformDeadLetters({ filter, pageSize: size, pageToken }, call) {
    const page = await letters.list('PLATFORM', filter, pageSize(size), pageToken, call);
    return { deadLetters: page.letters, nextPageToken: page.next, unreachableAreas: page.unreachable };
  },

  async getPlatformDeadLetter({ id }, call) {
    return letters.get('PLATFORM', id, call);
  },

  async redrivePlatformDeadLetter({ id }, call) {
    return letters.redrive('PLATFORM', id, call);
  },

  async discardPlatformDeadLetter({ id }, call) {
    return letters.discard('PLATFORM', id, call);
  },

  async redrivePlatformDeadLetters({ filter, pageSize: size, pageToken }, call) {
    return letters.redriveMany('PLATFORM', filter, size || MANY, pageToken, call);
  },

  async discardPlatformDeadLetters({ filter, pageSize: size, pageToken }, call) {
    return letters.discardMany('PLATFORM', filter, size || MANY, pageToken, call);
  },
});
