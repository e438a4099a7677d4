// A process of its own with schedules alone, for tests that kill it.
import { readConfig } from '#platform/config.ts';
import { openLog } from '#platform/log.ts';
import { runModules } from '#platform/module.ts';
import { module as schedules } from './module.ts';

const config = readConfig();
const running = await runModules({ modules: [schedules], config, log: openLog(config.logLevel) });
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void running.stop().then(() => process.exit(0)));
