// MILLRACE_NATS_URL: the servers of the broker and what lets us in, as NATS writes it: `nats://user:password@host:4222`,
// `nats://token@host:4222`, `tls://…` for TLS, several separated by commas. No part of it is ever told in an error: it may be a password.
export interface BrokerAddress {
  servers: string[]; // host:port
  user?: string;
  pass?: string;
  token?: string;
  tls?: object; // set when TLS is wanted
}

const FORM =
  'must be nats://user:password@host:port, several separated by commas; characters such as , @ : / in a password as %2C %40 %3A %2F';
const PORT = 4222;

export class AddressFault extends Error {
  override readonly name = 'AddressFault';
}

export function brokerAddress(text: string): BrokerAddress {
  const all = text
    .split(',')
    .filter((one) => one.trim() !== '')
    .map((one) => parse(one.trim()));
  const logins = new Set(all.filter(({ login }) => Object.keys(login).length > 0).map(({ login }) => JSON.stringify(login)));
  if (all.length === 0) throw new AddressFault(FORM);
  if (logins.size > 1) throw new AddressFault('must name the same user and password, or token, for each of its servers');
  return {
    servers: all.map(({ server }) => server),
    ...(JSON.parse([...logins][0] ?? '{}') as object),
    ...(all.some(({ isSecure }) => isSecure) ? { tls: {} } : {}),
  };
}

function parse(one: string): { server: string; login: { user: string; pass: string } | { token: string } | object; isSecure: boolean } {
  try {
    const { protocol, hostname, port, username, password, pathname } = new URL(one.includes('://') ? one : `nats://${one}`);
    if (!['nats:', 'tls:'].includes(protocol) || hostname === '' || !['', '/'].includes(pathname)) throw new AddressFault(FORM);
    const [name, secret] = [decodeURIComponent(username), decodeURIComponent(password)];
    const login = secret ? { user: name, pass: secret } : name ? { token: name } : {};
    return { server: `${hostname}:${port || PORT}`, login, isSecure: protocol === 'tls:' };
  } catch {
    throw new AddressFault(FORM); // what the parser says would repeat the text
  }
}
