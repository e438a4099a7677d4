// How the launcher sees that a part is ready. Each probe throws what it still waits for.
import { on } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { createConnection } from 'mysql2/promise';
import { brokerAddress } from '#platform/broker-address.ts';

const PROBE_MS = 2000;

export async function httpReady(url: string): Promise<string> {
  const answer = await fetch(url, { signal: AbortSignal.timeout(PROBE_MS) }).catch((error: Error & { cause?: Error }) => {
    throw new Error(`${url}: ${error.cause?.message || error.message}`);
  });
  const body = await answer.text();
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${body.slice(0, 400)}`);
  return body;
}

// The version of a database server that answers a query.
export async function databaseReady(url: string): Promise<string> {
  const at = new URL(url);
  const connection = await createConnection({
    host: at.hostname,
    port: Number(at.port || 3306),
    user: decodeURIComponent(at.username),
    password: decodeURIComponent(at.password),
    connectTimeout: PROBE_MS,
  });
  try {
    const [rows] = await connection.query('SELECT VERSION() AS version');
    return String((rows as { version: string }[])[0]?.version);
  } finally {
    connection.destroy();
  }
}

// What keeps a NATS server's streams from storing anything: once a write has failed, as on a full disk, they stay so until it is started again.
export async function brokerBroken(adminPort: number): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:${adminPort}/healthz`, { signal: AbortSignal.timeout(PROBE_MS) });
  const { error = '' } = (await answer.json()) as { error?: string };
  return /write error/i.test(error) ? error : '';
}

// The version of a NATS server that lets us in and offers JetStream. Errors name the host alone: the address may hold a password.
export async function brokerReady(url: string): Promise<string> {
  const { servers, user, pass, token, tls } = brokerAddress(url);
  const at = servers[0] ?? '';
  const cut = at.lastIndexOf(':');
  const socket = connect({ host: at.slice(0, cut).replace(/^\[|\]$/g, ''), port: Number(at.slice(cut + 1)), timeout: PROBE_MS });
  const lines = createInterface(socket);
  const failed = new Promise<never>((_, reject) => {
    socket.on('timeout', () => socket.destroy(new Error(`${at} does not greet`)));
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`${at} closed the connection`)));
  });
  failed.catch(() => undefined); // also when nobody waits for it any longer
  const told = async (sign: RegExp): Promise<string> => {
    for await (const [line] of on(lines, 'line')) if (sign.test(line)) return line;
    return '';
  };
  try {
    const greeting = await Promise.race([told(/^INFO /), failed]);
    const { version, jetstream } = JSON.parse(greeting.slice('INFO '.length)) as { version: string; jetstream?: boolean };
    if (!jetstream) throw new Error(`${at} has no JetStream`);
    if (tls) return version; // the services will see whether they are let in
    socket.write(
      `CONNECT ${JSON.stringify({ verbose: false, pedantic: false, lang: 'node', version: '1', user, pass, auth_token: token })}\r\nPING\r\n`,
    );
    const answer = await Promise.race([told(/^(PONG|-ERR)/), failed]);
    if (answer !== 'PONG') throw new Error(`${at} does not let us in: ${answer.slice('-ERR '.length)}`);
    return version;
  } finally {
    lines.close();
    socket.destroy();
  }
}
