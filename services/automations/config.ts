// config.ts: the settings of automations.
import { integer, setting, text } from '#platform/config.ts';
import { parseKeys } from './secret-vault.ts';

const keys = text.transform((value, context) => {
  try {
    return parseKeys(value);
  } catch (error) {
    context.issues.push({ code: 'custom', input: '', message: (error as Error).message });
    return [];
  }
});

export const settings = {
  secretKeys: setting(
    'MILLRACE_AUTOMATIONS_SECRET_KEYS',
    keys,
    'wrap the keys of secrets: <id>:<32 bytes in base64>, separated by commas or line ends; the first one is used for new ones, the others open what they wrapped',
  ),
  maxSecrets: setting('MILLRACE_AUTOMATIONS_MAX_SECRETS', integer(1000, 1, 100_000), 'how many secrets a workspace may have'),
  maxVariables: setting('MILLRACE_AUTOMATIONS_MAX_VARIABLES', integer(1000, 1, 100_000), 'how many variables a workspace may have'),
};
