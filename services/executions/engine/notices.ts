// Subjects of notices. A notice says "look" and is not the truth: it may be lost, doubled or late.
export const changed = (executionId: string): string => `executions.changed.${executionId}`; // state or progress; at the end it may carry that, as committed (events.endIn)
export const logs = (executionId: string): string => `executions.logs.${executionId}`; // there are new lines
export const cancel = (serverId: string): string => `executions.cancel.${serverId}`; // to the server's owner: some of its executions shall stop, or count no longer
export const servers = 'executions.servers'; // a server came, changed, or has no owner
export const work = 'executions.work'; // lanes, by commas, where something may start now, and what (tickets.workOf): whoever is idle need not wait for the ticket
export const loans = 'executions.loans'; // places that a dispatcher lends to whoever of those who accept hears it
export const taken = (dispatcherId: string): string => `executions.taken.${dispatcherId}`; // what was claimed by them
export const selected = 'executions.selected'; // to every dispatcher: lanes, by commas, whose executions run on some servers only
export const timers = 'executions.timers'; // something is due soon
