// Prints docs/ROLES.md from the contracts: node scripts/role-matrix.ts > docs/ROLES.md
import { type Contract, loadContract, type Method } from '#platform/contract.ts';

const ROLES = ['VIEWER', 'USER', 'ADMIN', 'PLATFORM_ADMIN'] as const;

export function roleMatrix(contract: Contract): string {
  const methods = [...contract.methods.values()];
  const scopes = [...new Set(methods.map((method) => method.scope).filter(Boolean))].sort();
  const areas = [...new Set(methods.map((method) => method.area))].sort();
  return [
    '# Who may call what',
    '',
    'Made from the contracts by `node scripts/role-matrix.ts > docs/ROLES.md`; a test compares. At sign-in the roles of the active workspace',
    "become the token's `scope`; the edge and the services look at the scope alone.",
    '',
    '## Permissions and the built-in roles that hold them',
    '',
    ...table(
      ['Permission', ...ROLES],
      scopes.map((scope) => [code(scope), ...ROLES.map((role) => (contract.rolesOf(scope).includes(role) ? 'yes' : ''))]),
    ),
    '',
    '## Limits at the edge',
    '',
    'Calls a minute, counted for each method and refilled continuously, times `MILLRACE_EDGE_RATE_SCALE`.',
    '',
    ...table(['Class', 'of a user', 'from an address'], rates(methods)),
    ...areas.flatMap((area) =>
      section(
        contract,
        area,
        methods.filter((method) => method.area === area),
      ),
    ),
    '',
  ].join('\n');
}

const section = (contract: Contract, area: string, methods: readonly Method[]): string[] => [
  '',
  `## ${area}`,
  '',
  ...table(
    ['Method', 'REST', 'Who', 'Built-in roles', 'Rate', 'Repeating a call', 'Audit', 'Deadline'],
    methods.map((method) => [
      code(`${method.service.split('.').at(-1)}.${method.name}`),
      method.bindings.map(({ verb, path }) => code(`${verb} ${path}`)).join('<br>'),
      who(method),
      method.access === 'PERMISSION' ? contract.rolesOf(method.scope).join(', ') : '',
      method.rate === 'RATE_CLASS_UNSPECIFIED' ? '' : method.rate,
      method.isRead ? 'reads only' : (REPEATING[method.idempotency] ?? method.idempotency),
      method.audit === 'AUDIT_CLASS_UNSPECIFIED' ? '' : method.audit,
      method.deadlineMs === 0 ? 'none' : `${method.deadlineMs / 1000} s`,
    ]),
  ),
];

const REPEATING: Record<string, string> = {
  NATURAL: 'same state',
  STORED: 'same answer with a key',
  EACH_CALL: 'counts again',
};

function who({ access, scope, services }: Method): string {
  const named = services.map(code).join(', ');
  if (access === 'SERVICE') return `only the services ${named}`;
  if (access === 'PUBLIC') return 'anyone';
  const users = access === 'AUTHENTICATED' ? 'anyone signed in' : code(scope);
  return named ? `${users}; for such a user also ${named}` : users;
}

function rates(methods: readonly Method[]): string[][] {
  const classes = new Map(methods.filter((method) => method.access !== 'SERVICE').map((method) => [method.rate, method]));
  const count = (limit: number) => (limit === 0 ? 'no limit' : String(limit));
  return [...classes]
    .sort(([one], [other]) => one.localeCompare(other))
    .map(([name, method]) => [name, count(method.perUserPerMinute), count(method.perAddressPerMinute)]);
}

const code = (text: string): string => `\`${text}\``;
const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string[] => [
  row(head),
  row(head.map(() => '---')),
  ...rows.map(row),
];

if (import.meta.main) process.stdout.write(roleMatrix(loadContract('build/image.binpb')));
