// Starts the modules that --target or MILLRACE_TARGET names, and stops them in order on SIGTERM or SIGINT. --list tells the names.
import { ConfigFault, readConfig } from '#platform/config.ts';
import { ContractFault } from '#platform/contract.ts';
import { openLog } from '#platform/log.ts';
import { pickTargets, runModules, StartFault } from '#platform/module.ts';
import { stopTelemetry } from '#platform/telemetry.ts';
import { modules } from './modules.ts';

const FORESEEN = [ConfigFault, ContractFault, StartFault];

const argument = process.argv.find((one) => one.startsWith('--target='))?.slice('--target='.length);

async function main(): Promise<void> {
  if (process.argv.includes('--list')) return console.log(modules.map((module) => module.name).join('\n'));
  const config = readConfig();
  const log = openLog(config.logLevel);
  const running = await runModules({ modules: pickTargets(modules, argument?.split(',') ?? config.target), config, log });
  const signal = await Promise.race([
    ...(['SIGTERM', 'SIGINT'] as const).map((name) => new Promise((resolve) => process.once(name, resolve))),
    running.failed,
  ]);
  log.info({ signal }, 'stopping');
  await running.stop();
  await stopTelemetry();
  log.info('stopped');
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(FORESEEN.some((kind) => error instanceof kind) ? `millrace cannot start: ${error.message}` : error);
    process.exit(FORESEEN.some((kind) => error instanceof kind) ? 2 : 1);
  },
);
