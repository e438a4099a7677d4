// Why a start failed and what to do about it, in words for the person who typed the command.

export class StartFault extends Error {
  override readonly name = 'StartFault';
  readonly wayOut: string;
  readonly lines: readonly string[];
  constructor(message: string, wayOut: string, lines: readonly string[] = []) {
    super(message);
    this.wayOut = wayOut;
    this.lines = lines;
  }
}

// What a part's last lines tell, the first that matches.
const SIGNS: [RegExp, string][] = [
  [
    /EADDRINUSE|address already in use|Bind on TCP\/IP port/i,
    'another process uses its port: run `make up` again, which takes another one',
  ],
  [
    /ENOSPC|No space left on device|Disk full|out of disk space|\b(errno:|error) 28\b/i,
    'the disk is full: make room, then run `make up` again',
  ],
  [
    /EACCES|Permission denied|\b(errno:|error) 13\b/i,
    'a file belongs to another user: was `make up` once run as root? Give the data folder to one user',
  ],
  [/Access denied for user/i, 'the database refuses the user: check MILLRACE_DATABASE_URL'],
  [/\b(ECONNREFUSED|ENOTFOUND|ETIMEDOUT)\b/, 'something that it calls does not answer: check the addresses that you set'],
  [
    /ERR_MODULE_NOT_FOUND|ModuleNotFoundError|No such file or directory|Cannot find module/i,
    'something is not installed or generated: run `make doctor`',
  ],
  [/Cannot allocate memory|out of memory|ENOMEM/i, 'the machine has too little memory: 2 GiB are needed'],
  [/GLIBC_\d|GLIBCXX_/i, 'the system is too old for this program: use Debian 12, Ubuntu 24.04 or newer'],
  [
    /unsupported redo log|was created with MariaDB|Upgrade after a crash is not supported/i,
    'the data folder belongs to another version of MariaDB: install that version, or delete the data with `make reset`',
  ],
];

export const wayOut = (lines: readonly string[], otherwise: string): string =>
  SIGNS.find(([sign]) => lines.some((line) => sign.test(line)))?.[1] ?? otherwise;

export function tellFault(error: unknown): string {
  if (!(error instanceof StartFault)) return error instanceof Error ? (error.stack ?? error.message) : String(error);
  const lines = error.lines.length > 0 ? `\n${error.lines.map((line) => `  | ${line}`).join('\n')}` : '';
  return `millrace: ${error.message}${lines}\nThe way out: ${error.wayOut}.`;
}
