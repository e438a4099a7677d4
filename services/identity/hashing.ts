// Password hashes: argon2id (RFC 9106) with 19 MiB, 2 passes, 1 lane (OWASP), in a pool that is bounded in work and in waiting.
import { randomBytes } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { hash, verify } from '@node-rs/argon2';
import { exhausted } from '#platform/errors.ts';
import { counter, gauge } from '#platform/metrics.ts';

export interface Hashing {
  hash(password: string, signal?: AbortSignal): Promise<string>;
  // With no hash, as for a name that nobody has, the same work is done and the answer is false.
  verify(hash: string | undefined, password: string, signal?: AbortSignal): Promise<boolean>;
}

const COST = { memoryCost: 19_456, timeCost: 2, parallelism: 1 }; // argon2id is the library's algorithm unless told otherwise
const THREADS = 3; // of the four that Node has for such work: files and name look-ups keep one
const QUEUE = 64;
const RETRY_MS = 1000;

const jobs = counter('millrace_identity_password_jobs_total', 'Passwords hashed, by what for', ['purpose']);
const refused = counter('millrace_identity_password_refused_total', 'Passwords not hashed because too many waited');
const waiting = gauge('millrace_identity_password_waiting', 'Passwords that wait to be hashed');

export async function openHashing({ concurrency = Math.min(availableParallelism(), THREADS), queue = QUEUE } = {}): Promise<Hashing> {
  const decoy = await hash(randomBytes(32), COST);
  const waiters: (() => void)[] = [];
  let running = 0;

  async function turn(signal: AbortSignal | undefined): Promise<void> {
    if (running < concurrency) {
      running++;
      return;
    }
    if (waiters.length >= queue) {
      refused.inc();
      throw exhausted('too many passwords are being checked: try again in a moment', RETRY_MS);
    }
    await new Promise<void>((resolve, reject) => {
      const go = () => {
        signal?.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        waiters.splice(waiters.indexOf(go), 1);
        reject(signal?.reason);
      };
      if (signal?.aborted) return reject(signal.reason);
      signal?.addEventListener('abort', leave, { once: true });
      waiters.push(go);
    });
  }

  async function run<T>(purpose: string, signal: AbortSignal | undefined, job: () => Promise<T>): Promise<T> {
    await turn(signal);
    try {
      jobs.inc({ purpose });
      return await job();
    } finally {
      const next = waiters.shift(); // the place is handed on, so `running` stays
      if (next) next();
      else running--;
      waiting.set(waiters.length);
    }
  }

  return {
    hash: (password, signal) => run('hash', signal, () => hash(normal(password), COST)),
    async verify(known, password, signal) {
      const matches = await run(known ? 'verify' : 'decoy', signal, () => verify(known ?? decoy, normal(password)));
      return matches && known !== undefined;
    },
  };
}

// The same characters typed on different systems are the same password (RFC 8265 does so too).
const normal = (password: string): string => password.normalize('NFKC');
