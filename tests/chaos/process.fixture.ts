// A process of its own with executions and their dispatcher, for tests that kill it. Says its gRPC address when it is ready.
import { readConfig } from '#platform/config.ts';
import { openLog } from '#platform/log.ts';
import { runModules } from '#platform/module.ts';
import { module as dispatcher } from '../../services/executions/dispatcher/module.ts';
import { module as executions } from '../../services/executions/module.ts';

const config = readConfig();
const running = await runModules({ modules: [executions, dispatcher], config, log: openLog(config.logLevel) });
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => void running.stop().then(() => process.exit(0)));
