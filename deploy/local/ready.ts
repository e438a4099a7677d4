// How the launcher sees that a part is ready. Each probe throws what it still waits for.
import { connect } from 'node:net';
import { createConnection } from 'mysql2/promise';

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

// The greeting of a NATS server, which must offer JetStream.
export async function brokerReady(url: string): Promise<string> {
  const at = new URL(url.split(',')[0] ?? url);
  const greeting = await new Promise<string>((resolve, reject) => {
    const socket = connect({ host: at.hostname, port: Number(at.port || 4222), timeout: PROBE_MS });
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => {
      text += chunk;
      if (!text.includes('\r\n')) return;
      socket.destroy();
      resolve(text);
    });
    socket.on('timeout', () => socket.destroy(new Error(`${at.host} does not greet`)));
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`${at.host} closed the connection`)));
  });
  const info = JSON.parse(greeting.slice('INFO '.length, greeting.indexOf('\r\n'))) as { version: string; jetstream?: boolean };
  if (!info.jetstream) throw new Error(`${at.host} has no JetStream`);
  return info.version;
}
