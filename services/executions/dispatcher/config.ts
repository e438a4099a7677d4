// Settings of the dispatcher.
import { integer, setting } from '#platform/config.ts';

const ms = (name: string, otherwise: number, min: number, max: number, what: string) =>
  setting(`MILLRACE_DISPATCHER_${name}_MS`, integer(otherwise, min, max), `${what}, in milliseconds`);

export const settings = {
  leaseMs: ms('LEASE', 6000, 500, 60_000, 'how long a dispatcher counts as alive after its last sign'),
  serverLeaseMs: ms(
    'SERVER_LEASE',
    30_000,
    1000,
    600_000,
    'how long the attempts of an automation server count as alive after its last sign',
  ),
  tickMs: ms('TICK', 1000, 50, 10_000, 'how often a dispatcher gives a sign and looks who owns which server'),
  quantum: setting('MILLRACE_DISPATCHER_QUANTUM', integer(64, 1, 1024), 'the most executions that a lane is given in one turn'),
};
