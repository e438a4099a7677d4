import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { expect } from 'chai';
import { ConfigFault, readSettings } from './config.ts';
import { EgressFault, egressSettings, isPublic, openEgress } from './egress.ts';

// Spellings of places that nobody may reach by an address that a user chose. {port} is where something listens.
const HOSTS = [
  // loopback, in every way that a parser of addresses takes
  ...['127.0.0.1', '127.0.0.2', '127.1', '127.0.1', '127.255.255.254', '2130706433', '0x7f000001', '0x7f.0.0.1', '0x7f.1', '017700000001'],
  ...['0177.0.0.1', '0177.0.0.01', '00000177.0.0.1', '0x7F.0x0.0x0.0x1', '127.0x0.01', '127.000.000.001', '①②⑦.⓪.⓪.①', '１２７.０.０.１'],
  ...[
    '127。0。0。1',
    '127．0．0．1',
    '%31%32%37.0.0.1',
    '127.0.0.1%2e',
    'localhost',
    'LOCALHOST',
    'localhost.',
    'LocalHost',
    'ｌｏｃａｌｈｏｓｔ',
    'foo.localhost',
  ],
  ...['[::1]', '[0:0:0:0:0:0:0:1]', '[0000::0001]', '[::0001]', '[0::1]'],
  // an IPv4 address in an IPv6 one: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP
  ...['[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[0:0:0:0:0:ffff:127.0.0.1]', '[::FFFF:127.0.0.1]', '[::127.0.0.1]', '[::7f00:1]'],
  ...['[::ffff:0:127.0.0.1]', '[64:ff9b::127.0.0.1]', '[64:ff9b::7f00:1]', '[64:ff9b:1::7f00:1]', '[2002:7f00:1::]', '[2002:a00:1::1]'],
  ...[
    '[2001:0:7f00:1::]',
    '[2001::1]',
    '[fe80::5efe:7f00:1]',
    '[::ffff:169.254.169.254]',
    '[::ffff:10.0.0.1]',
    '[::ffff:a9fe:a9fe]',
    '[::ffff:8.8.8.8]',
  ],
  // this network, all addresses
  ...['0.0.0.0', '0', '0x0', '00', '0.1.2.3', '[::]', '[0:0:0:0:0:0:0:0]'],
  // private networks
  ...[
    '10.0.0.1',
    '10.255.255.255',
    '10.1',
    '0xa.0.0.1',
    '167772161',
    '012.0.0.1',
    '172.16.0.1',
    '172.31.255.255',
    '2886729729',
    '192.168.0.1',
  ],
  ...['192.168.1', '0xc0a80001', '3232235521', '0300.0250.0.1', '[fc00::1]', '[fd00::1]', '[fdff:ffff::1]', '[fec0::1]'],
  // link-local, and metadata of clouds
  ...[
    '169.254.169.254',
    '169.254.0.1',
    '2852039166',
    '0xa9fea9fe',
    '0251.0376.0251.0376',
    '0251.254.169.254',
    '169.254.43518',
    '169.16689662',
  ],
  ...['[fe80::1]', '[febf::1]', '[fd00:ec2::254]', '100.100.100.200', '168.63.129.16', '192.0.0.192'],
  // shared address space, benchmarks, documentation, protocol assignments, relays
  ...[
    '100.64.0.1',
    '100.127.255.255',
    '198.18.0.1',
    '198.19.255.255',
    '192.0.2.1',
    '198.51.100.1',
    '203.0.113.1',
    '192.0.0.1',
    '192.88.99.1',
  ],
  ...['[2001:db8::1]', '[3fff::1]', '[2001:2::1]', '[100::1]', '[5f00::1]'],
  // multicast, reserved, broadcast
  ...['224.0.0.1', '239.255.255.250', '240.0.0.1', '255.255.255.255', '4294967295', '0xffffffff', '[ff02::1]', '[ff0e::1]', '[4000::1]'],
];
const URLS = [
  ...HOSTS.flatMap((host) => [`https://${host}:{port}/`, `http://${host}:{port}/`]),
  ...HOSTS.filter((_, index) => index % 3 === 0).map((host) => `https://${host}/`), // the port that is allowed anywhere
  // other schemes, names before an @, and what is no address
  ...[
    'ftp://127.0.0.1:{port}/',
    'file:///etc/passwd',
    'gopher://127.0.0.1:{port}/_x',
    'javascript:alert(1)',
    'data:text/plain,x',
    'ws://127.0.0.1:{port}/',
  ],
  ...[
    'unix:///tmp/x.sock',
    'http+unix://%2ftmp/x',
    '//127.0.0.1:{port}/',
    '127.0.0.1:{port}',
    '',
    ' ',
    'https://',
    'https:///',
    'https://:{port}/',
    'https:127.0.0.1:{port}',
  ],
  ...[
    'https://example.com@127.0.0.1:{port}/',
    'https://example.com:443@127.0.0.1:{port}/',
    'https://127.0.0.1:{port}@example.com/',
    'https://user@example.com/',
  ],
  ...[
    'https://example.com#@127.0.0.1:{port}/',
    'https://127.0.0.1:{port}\\@example.com/',
    'https:\\\\127.0.0.1:{port}/',
    'https://127.0.0.1:{port}?@example.com/',
  ],
  ...[
    'https://exam\tple.com@127.0.0.1:{port}/',
    '\u0000https://127.0.0.1:{port}/',
    'https://127.0.0.1:{port}\u0000.example.com/',
    'https://[::1%25lo]:{port}/',
    'https://[127.0.0.1]:{port}/',
  ],
  `https://example.com/${'a'.repeat(3000)}`,
  // ports that are none of the web's
  ...[22, 25, 53, 80, 3306, 4222, 6379, 8080, 9200].map((port) => `https://93.184.215.14:${port}/`),
];

describe('calls to addresses that users choose', function () {
  this.timeout(30_000);
  const servers: { close(): void }[] = [];
  let port = 0;
  let arrivals = 0;
  let sockets = 0;
  const ours = new AsyncLocalStorage<true>(); // other tests' clients of this process open sockets, too
  const count = () => {
    if (ours.getStore()) sockets += 1;
  };
  before(async () => {
    const server = createTcpServer((socket) => {
      arrivals += 1;
      socket.destroy();
    });
    await new Promise<void>((resolve) => server.listen(0, '::', resolve)); // both families, every address of this machine
    port = (server.address() as AddressInfo).port;
    servers.push(server);
    subscribe('net.client.socket', count);
  });
  after(() => {
    unsubscribe('net.client.socket', count);
    for (const server of servers) server.close();
  });
  beforeEach(() => {
    arrivals = 0;
    sockets = 0;
  });
  const caught = (work: () => Promise<unknown>): Promise<unknown> =>
    ours.run(true, work).then(
      (answer) => answer,
      (error) => error,
    );
  const known = async (host: string) => {
    if (/localhost/i.test(host)) return [{ address: '127.0.0.1', family: 4 }];
    throw new Error(`${host} was asked for`);
  };

  it(`reach no inner place in ${URLS.length} spellings: no socket is opened`, async () => {
    expect(URLS.length).to.be.at.least(300);
    for (const allow of [[], ['10.9.9.0/24', 'fd99::/64']]) {
      const egress = openEgress({ ports: [443, port], lookup: known, allow });
      for (const spelling of URLS) {
        const url = spelling.replace('{port}', String(port));
        expect(await caught(() => egress.post(url, {}, '{}')), url).to.be.instanceOf(EgressFault);
      }
    }
    expect({ sockets, arrivals }).to.deep.equal({ sockets: 0, arrivals: 0 });
  });

  it('are seen when they are made: the count above can fail', async () => {
    const egress = openEgress({ allow: ['127.0.0.1'], lookup: known });
    await caught(() => egress.post(`http://127.0.0.1:${port}/`, {}, ''));
    expect({ sockets, arrivals }).to.deep.equal({ sockets: 1, arrivals: 1 });
  });

  it('go to nobody whose name has an inner address among others', async () => {
    for (const inner of ['127.0.0.1', '10.0.0.1', '::1', '::ffff:127.0.0.1', 'fd00::1', '169.254.169.254']) {
      const addresses = ['93.184.215.14', inner, '2606:2800:21f::1'].map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
      const egress = openEgress({ ports: [port], lookup: async () => addresses });
      expect(await caught(() => egress.post(`https://example.com:${port}/`, {}, '')), inner).to.be.instanceOf(EgressFault);
    }
    expect(await caught(() => openEgress({ lookup: async () => [] }).post('https://example.com/', {}, ''))).to.be.instanceOf(EgressFault);
    expect(sockets).to.equal(0);
  });

  it('go to the address that was checked, whatever the name server says the next time', async () => {
    const seen: string[] = [];
    const answers = ['127.0.0.2', '127.0.0.1', '127.0.0.1'];
    let asked = 0;
    const hear = (address: string) =>
      new Promise<Server>((resolve) => {
        const server = createServer((request, response) => {
          seen.push(`${address} ${request.headers.host}`);
          response.end('heard');
        });
        servers.push(server);
        server.listen(address === '127.0.0.2' ? 0 : rebindPort, address, () => resolve(server));
      });
    let rebindPort = 0;
    rebindPort = ((await hear('127.0.0.2')).address() as AddressInfo).port;
    await hear('127.0.0.1');
    const egress = openEgress({
      allow: ['127.0.0.2/32'],
      lookup: async () => [{ address: answers[asked++] ?? '', family: 4 }],
    });
    expect(await egress.post(`http://rebind.test:${rebindPort}/x?y`, {}, '{}')).to.deep.equal({ status: 200, body: 'heard' });
    expect([seen, asked]).to.deep.equal([[`127.0.0.2 rebind.test:${rebindPort}`], 1]);
    expect(await caught(() => egress.post(`http://rebind.test:${rebindPort}/`, {}, '')), 'the second time').to.be.instanceOf(EgressFault);
    expect(seen).to.have.length(1);
  });

  it('follow no redirect, read only so much, and wait only so long', async () => {
    const server = createServer((request, response) => {
      if (request.url === '/redirect') response.writeHead(307, { location: `http://127.0.0.1:${port}/` }).end();
      else if (request.url === '/endless') setInterval(() => response.write('x'.repeat(4096)), 1).unref();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    servers.push({ close: () => server.close().closeAllConnections() });
    const at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const egress = openEgress({ allow: ['127.0.0.0/8'], timeoutMs: 500, maxResponseBytes: 10_000 });
    expect(await egress.post(`${at}/redirect`, {}, '')).to.include({ status: 307 });
    expect(arrivals).to.equal(0);
    expect((await egress.post(`${at}/endless`, {}, '')).body).to.have.length(10_000);
    expect(await caught(() => egress.post(`${at}/silent`, {}, ''))).to.have.property('message', 'it did not answer in time');
    const stuck = openEgress({ timeoutMs: 100, lookup: () => new Promise(() => undefined) });
    expect(await caught(() => stuck.post('https://example.com/', {}, ''))).to.be.instanceOf(EgressFault);
  });

  it('may go to inner networks that the operator names, which must be networks', () => {
    const read = (value: string) => readSettings(egressSettings, { MILLRACE_EGRESS_ALLOW: value }).allow;
    expect(read('10.1.0.0/16, fd00::/8,127.0.0.1')).to.deep.equal(['10.1.0.0/16', 'fd00::/8', '127.0.0.1']);
    for (const wrong of ['10.1.0.0/33', '10.1.0.0/x', 'localhost', '10.1.0.0/16/2', '*', 'fd00::/129'])
      expect(() => read(wrong), wrong).to.throw(ConfigFault);
    const egress = openEgress({ allow: ['10.1.0.0/16'] });
    expect(egress.check('http://10.1.2.3:8080/x').port).to.equal('8080');
    expect(() => egress.check('http://10.2.2.3:8080/x')).to.throw(EgressFault);
    expect(() => egress.check('http://93.184.215.14/'), 'by http only there').to.throw(EgressFault);
  });

  it('may go to the internet', () => {
    for (const address of ['8.8.8.8', '93.184.215.14', '1.1.1.1', '172.32.0.1', '100.128.0.1', '2606:4700:4700::1111', '2a00:1450::1'])
      expect(isPublic(address), address).to.equal(true);
    expect(openEgress().check('https://hooks.example.com/a?b').hostname).to.equal('hooks.example.com');
  });
});
