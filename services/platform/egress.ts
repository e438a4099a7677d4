// Calls to addresses that users choose, such as receivers of webhooks: never to where only this installation can reach.
//
// A name is resolved once, every address that it has is checked, and the connection goes to one of the checked addresses, so that a name
// server that answers differently the second time gains nothing. Redirects are not followed. Source: OWASP, "Server-Side Request Forgery
// Prevention"; IANA's special-purpose address registries.
import { lookup as resolve } from 'node:dns/promises';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { BlockList, isIP } from 'node:net';
import { list, setting } from './config.ts';

export interface Egress {
  check(url: string): URL; // throws EgressFault for one that can never be called; resolves nothing
  post(url: string, headers: Readonly<Record<string, string>>, body: string): Promise<{ status: number; body: string }>;
}
interface Address {
  address: string;
  family: number;
}
interface Options {
  allow?: readonly string[]; // networks
  ports?: readonly number[];
  timeoutMs?: number;
  maxResponseBytes?: number;
  lookup?: (host: string) => Promise<readonly Address[]>;
}

// Says no more than that the address may not be called, or why a call failed: what it found must not be of use to a caller who searches.
export class EgressFault extends Error {
  override readonly name = 'EgressFault';
}

export const egressSettings = {
  allow: setting(
    'MILLRACE_EGRESS_ALLOW',
    list.refine((all) => all.every((one) => subnetOf(one) !== undefined), 'must be networks such as 10.1.0.0/16'),
    'inner networks that users may have called, such as 10.1.0.0/16, on any port and by plain http, too; separated by commas',
  ),
};

const PORTS = [443, 8443];
const TIMEOUT_MS = 10_000;
const MAX_RESPONSE_BYTES = 16 * 1024;
const MAX_URL = 2048;

// What is no place of the internet: this host, inner networks, shared and reserved ranges, documentation, multicast, metadata of clouds.
const INNER_V4 = [
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24', '192.0.2.0/24'],
  ...['192.31.196.0/24', '192.52.193.0/24', '192.88.99.0/24', '192.168.0.0/16', '192.175.48.0/24', '198.18.0.0/15', '198.51.100.0/24'],
  ...['203.0.113.0/24', '224.0.0.0/4', '240.0.0.0/4', '168.63.129.16/32'],
];
// Of IPv6 only global unicast counts at all; in it, what carries or names an IPv4 address, and what is set aside.
const GLOBAL_V6 = ['2000::/3'];
const INNER_V6 = ['2001::/23', '2001:db8::/32', '2002::/16', '2620:4f:8000::/48', '3fff::/20'];

const innerV4 = networks(INNER_V4);
const globalV6 = networks(GLOBAL_V6);
const innerV6 = networks(INNER_V6);

export function isPublic(address: string): boolean {
  if (isIP(address) === 4) return !innerV4.check(address, 'ipv4');
  return isIP(address) === 6 && globalV6.check(address, 'ipv6') && !innerV6.check(address, 'ipv6');
}

export function openEgress({
  allow = [],
  ports = PORTS,
  timeoutMs = TIMEOUT_MS,
  maxResponseBytes = MAX_RESPONSE_BYTES,
  lookup = (host) => resolve(host, { all: true, verbatim: true }),
}: Options = {}): Egress {
  const allowed = networks(allow);
  const isAllowed = ({ address, family }: Address): boolean => allowed.check(address, family === 6 ? 'ipv6' : 'ipv4');

  function check(text: string): URL {
    const url = URL.canParse(text) && text.length <= MAX_URL ? new URL(text) : undefined;
    if (!url || (url.protocol !== 'https:' && url.protocol !== 'http:')) throw new EgressFault('it must be an https address');
    if (url.username !== '' || url.password !== '') throw new EgressFault('it must hold no username and no password');
    if (url.hostname === '' || url.hostname.endsWith('.')) throw new EgressFault('it must name a host without a dot at its end');
    if (url.protocol === 'http:' && allow.length === 0) throw new EgressFault('it must be an https address');
    const family = isIP(bare(url));
    if (family !== 0) permit(url, [{ address: bare(url), family }]);
    return url;
  }

  // Every address of the host must be one that may be called: which of them is used is not the caller's to choose.
  function permit(url: URL, addresses: readonly Address[]): Address {
    const [first] = addresses;
    if (!first) throw new EgressFault('its host has no address');
    if (addresses.every(isAllowed)) return first;
    const port = Number(url.port || (url.protocol === 'https:' ? 443 : 80));
    if (url.protocol !== 'https:') throw new EgressFault('it must be an https address');
    if (!ports.includes(port)) throw new EgressFault(`its port must be one of ${ports.join(', ')}`);
    if (!addresses.every(({ address }) => isPublic(address))) throw new EgressFault('its host is not on the internet');
    return first;
  }

  return {
    check,
    async post(text, headers, body) {
      const url = check(text);
      const late = AbortSignal.timeout(timeoutMs);
      const host = bare(url);
      const family = isIP(host);
      const addresses = family === 0 ? await inTime(lookup(host), late) : [{ address: host, family }];
      return send(url, permit(url, addresses), { headers, body, signal: late, maxResponseBytes });
    },
  };
}

interface Sending {
  headers: Readonly<Record<string, string>>;
  body: string;
  signal: AbortSignal;
  maxResponseBytes: number;
}

// To this very address; the name serves for TLS and for the Host header alone.
function send(
  url: URL,
  { address, family }: Address,
  { headers, body, signal, maxResponseBytes }: Sending,
): Promise<{ status: number; body: string }> {
  return new Promise((done, fail) => {
    const isSecure = url.protocol === 'https:';
    const host = bare(url);
    const options = {
      host: address,
      family,
      port: url.port || (isSecure ? 443 : 80),
      path: `${url.pathname}${url.search}`,
      method: 'POST',
      agent: false,
      signal,
      headers: { ...headers, host: url.host, 'content-length': String(Buffer.byteLength(body)), connection: 'close' },
      ...(isSecure ? { servername: isIP(host) === 0 ? host : '' } : {}),
    };
    const call = (isSecure ? httpsRequest : httpRequest)(options, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      const finish = () => {
        done({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).subarray(0, maxResponseBytes).toString('utf8') });
        response.destroy();
      };
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        bytes += chunk.length;
        if (bytes >= maxResponseBytes) finish();
      });
      response.on('end', finish);
      response.on('error', (error) => fail(failure(error, signal)));
    });
    call.on('error', (error) => fail(failure(error, signal)));
    call.end(body);
  });
}

const bare = (url: URL): string => url.hostname.replace(/^\[|\]$/g, '');

function failure(error: Error & { code?: string }, signal: AbortSignal): EgressFault {
  if (signal.aborted) return new EgressFault('it did not answer in time', { cause: error });
  return new EgressFault(`it could not be called${error.code ? ` (${error.code})` : ''}`, { cause: error });
}

async function inTime(work: Promise<readonly Address[]>, signal: AbortSignal): Promise<readonly Address[]> {
  const late = new Promise<never>((_, fail) => signal.addEventListener('abort', () => fail(new Error('late')), { once: true }));
  try {
    return await Promise.race([work, late]);
  } catch (error) {
    throw new EgressFault('its host cannot be resolved', { cause: error });
  }
}

function networks(all: readonly string[]): BlockList {
  const made = new BlockList();
  for (const network of all) {
    const subnet = subnetOf(network);
    if (!subnet) throw new Error(`${network} is no network: write it as 10.0.0.0/8`);
    made.addSubnet(subnet.address, subnet.bits, subnet.family);
  }
  return made;
}

function subnetOf(network: string): { address: string; bits: number; family: 'ipv4' | 'ipv6' } | undefined {
  const [address = '', bits, ...rest] = network.split('/');
  const [family, most] = isIP(address) === 6 ? (['ipv6', 128] as const) : (['ipv4', 32] as const);
  if (isIP(address) === 0 || rest.length > 0 || (bits !== undefined && !(/^\d{1,3}$/.test(bits) && Number(bits) <= most))) return undefined;
  return { address, bits: Number(bits ?? most), family };
}
