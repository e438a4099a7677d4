// `make token SERVICE=dispatcher`: a token of a service for 60 seconds, to call methods by hand that only services may call.
import { serviceSigner } from '#platform/service-token.ts';
import { StartFault } from './faults.ts';
import type { Layout } from './layout.ts';
import { makeSecrets, SERVICES } from './secrets.ts';

export async function token({ secrets }: Layout, name: string | undefined, audience = 'runner'): Promise<number> {
  const service = SERVICES.find((one) => one === name);
  if (!service)
    throw new StartFault(
      'SERVICE names no service',
      `run \`make token SERVICE=dispatcher\`; there are ${SERVICES.join(', ')}, and AUD=<area called> (runner by default)`,
    );
  console.log(await serviceSigner(makeSecrets(secrets).serviceKeys, service)(audience));
  return 0;
}
