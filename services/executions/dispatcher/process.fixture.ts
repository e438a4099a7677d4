// A process of its own with the dispatcher alone, for tests that kill it.
import { readConfig } from '#platform/config.ts';
import { openLog } from '#platform/log.ts';
import { runModules } from '#platform/module.ts';
import { module as dispatcher } from './module.ts';

const config = readConfig();
const running = await runModules({ modules: [dispatcher], config, log: openLog(config.logLevel) });
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => void running.stop().then(() => process.exit(0)));
