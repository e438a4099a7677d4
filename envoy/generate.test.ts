// The configuration itself: what is in it, what is not, and that Envoy's own check sees a broken one.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { expect } from 'chai';
import { ConfigFault } from '#platform/config.ts';
import { type Contract, loadContract } from '#platform/contract.ts';
import type { Fields } from './config.ts';
import { pruneDescriptor } from './descriptor.ts';
import { validate, write } from './files.ts';
import { type Edge, generate } from './generate.ts';
import { isServed } from './policy.ts';
import { readEdgeSettings } from './settings.ts';
import { pathPattern } from './template.ts';
import { ENVOY } from './testbed/bed.ts';

const ENV = {
  MILLRACE_HEALTH_URL: '127.0.0.1:5001',
  MILLRACE_IDENTITY_URL: 'identity.test:5001',
  MILLRACE_TASKS_URL: '127.0.0.1:5001',
  MILLRACE_AUTOMATIONS_URL: '127.0.0.1:5001',
  MILLRACE_EXECUTIONS_URL: '[::1]:5001',
  MILLRACE_SCHEDULES_URL: '127.0.0.1:5001',
  MILLRACE_WEBHOOKS_URL: '127.0.0.1:5001',
  MILLRACE_PUBLIC_URL: 'http://millrace.test',
  MILLRACE_IDENTITY_JWKS_URL: 'https://identity.test/jwks',
};
// biome-ignore lint/suspicious/noExplicitAny: looks into JSON
type Any = any;
const hcm = (edge: Edge): Any => (edge.listener as Any).filter_chains[0].filters[0].typed_config;

describe('the generated edge', () => {
  let folder: string;
  let contract: Contract;
  const make = (env: Record<string, string> = {}) => generate(readEdgeSettings({ ...ENV, ...env }), contract, folder);
  before(() => {
    contract = loadContract('build/image.binpb');
  });
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'edge-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('is accepted by Envoy with every setting in use', () => {
    const all = {
      MILLRACE_EDGE_CORS_ORIGINS: 'http://localhost:3000,*',
      MILLRACE_EDGE_REFLECTION: 'true',
      MILLRACE_EDGE_METRICS: 'true',
      MILLRACE_METRICS_ADDRESS: '127.0.0.1:5003',
      MILLRACE_EDGE_ADMIN_ADDRESS: '127.0.0.1:0',
      MILLRACE_EDGE_TRUSTED_HOPS: '2',
      OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector.test:4318/',
    };
    for (const env of [{}, all, { MILLRACE_EDGE_RATE_SCALE: '0' }]) {
      write(make(env), folder);
      validate(ENVOY, folder);
    }
  });

  it('is refused when a part that Envoy reads while it runs is broken', () => {
    const edge = make();
    const broken: [string, () => Edge][] = [
      [
        'a route to no cluster',
        () =>
          edit(
            edge,
            (all) =>
              (all.static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.cluster =
                ''),
          ),
      ],
      [
        'an unknown field',
        () => edit(edge, (all) => (all.static_resources.listeners[0].filter_chains[0].filters[0].typed_config.requireTokens = true)),
      ],
      ['no descriptor', () => edit(edge, () => undefined)],
      [
        'a bad pattern',
        () =>
          edit(
            edge,
            (all) =>
              (all.static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes.at(
                -1,
              ).match = { safe_regex: { regex: '(' } }),
          ),
      ],
    ];
    for (const [name, make] of broken) {
      write(make(), folder);
      if (name === 'no descriptor') rmSync(join(folder, edge.descriptor.name));
      expect(() => validate(ENVOY, folder), name).to.throw(ConfigFault, 'Envoy refuses it');
    }
  });

  it('says what is missing in the settings', () => {
    expect(() => readEdgeSettings({})).to.throw(ConfigFault, /MILLRACE_PUBLIC_URL[\s\S]*MILLRACE_IDENTITY_JWKS_URL/);
    expect(() => readEdgeSettings({ ...ENV, MILLRACE_EDGE_METRICS: 'true' })).to.throw(ConfigFault, 'MILLRACE_METRICS_ADDRESS');
    expect(() => make({ MILLRACE_IDENTITY_JWKS_URL: `${ENV.MILLRACE_PUBLIC_URL}/.well-known/jwks.json` })).to.throw(
      ConfigFault,
      'the edge itself',
    );
    expect(() => make({ MILLRACE_TASKS_URL: '' })).to.throw(ConfigFault, 'MILLRACE_TASKS_URL');
  });

  it('gives Envoy no method that is for services', () => {
    const { descriptor } = make();
    const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptor.bytes));
    const known = [...registry.files]
      .flatMap((file) => file.services)
      .flatMap((one) => one.methods.map((method) => `/${one.typeName}/${method.name}`));
    const served = [...contract.methods.values()].filter(isServed).map((method) => method.path);
    expect(known.sort()).to.deep.equal(served.sort());
    const [only] = served;
    const less = pruneDescriptor(
      contract,
      [...contract.methods.values()].filter((method) => method.path === only),
    );
    const left = [...createFileRegistry(fromBinary(FileDescriptorSetSchema, less.bytes)).files].flatMap((file) => file.services);
    expect(left.flatMap((one) => one.methods.map((method) => `/${one.typeName}/${method.name}`))).to.deep.equal([only]);
    expect(registry.getMessage('google.rpc.RetryInfo')).to.not.equal(undefined);
    expect(registry.getMessage('millrace.runner.v1.RunRequest')).to.equal(undefined);
  });

  it('lets a call be silent until its deadline, and a stream longer than its keep-alive', () => {
    const routes = (make().routes as Any).virtual_hosts[0].routes.filter(({ name }: Any) => contract.methods.has(name));
    for (const { name, route } of routes) {
      const { isStream, deadlineMs = 0 } = contract.methods.get(name) ?? {};
      const idle = Number.parseFloat(route.idle_timeout);
      const timeout = Number.parseFloat(route.timeout);
      if (isStream) expect([idle, timeout], name).to.deep.equal([60, 0]);
      else
        expect(idle, name)
          .to.be.above(timeout)
          .and.above(deadlineMs / 1000);
    }
    expect(routes.length).to.be.above(30);
  });

  it('fetches the keys from identity, ahead of need, and passes tokens on', () => {
    const { jwt } = Object.fromEntries(hcm(make()).http_filters.map((one: Any) => [one.name, one.typed_config]));
    expect(jwt.providers.identity).to.deep.include({ issuer: 'http://millrace.test', audiences: ['millrace'], forward: true });
    expect(jwt.providers.identity.remote_jwks).to.deep.include({
      http_uri: { uri: ENV.MILLRACE_IDENTITY_JWKS_URL, cluster: 'jwks', timeout: '2s' },
      cache_duration: '60s',
      async_fetch: { failed_refetch_duration: '2s' },
    });
    const jwks = make().clusters.find((one) => one.name === 'jwks') as Any;
    expect(jwks.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address).to.deep.equal({
      address: 'identity.test',
      port_value: 443,
    });
    expect(jwks.transport_socket.typed_config.sni).to.equal('identity.test');
  });

  it('refuses by default', () => {
    const { http_filters, local_reply_config } = hcm(make());
    const filter = (name: string) => http_filters.find((one: Any) => one.name === name).typed_config;
    expect(filter('jwt').rules).to.deep.equal([{ match: { prefix: '/' }, requires: { provider_name: 'identity' } }]);
    expect(filter('rbac').rules).to.deep.equal({ action: 'ALLOW', policies: {} });
    const routes = (make().routes as Any).virtual_hosts[0].routes;
    expect(routes.at(-1)).to.deep.include({ name: 'deny', match: { prefix: '/' }, direct_response: { status: 404 } });
    expect(routes.filter((route: Any) => !route.typed_per_filter_config.jwt || !route.typed_per_filter_config.rbac)).to.deep.equal([]);
    expect(local_reply_config.mappers.length).to.be.greaterThan(20);
  });

  it('keeps to what Envoy advises for an edge', () => {
    const edge = make();
    expect(edge.listener).to.include({ per_connection_buffer_limit_bytes: 32768, enable_reuse_port: false });
    expect(hcm(edge)).to.deep.include({
      use_remote_address: true,
      normalize_path: true,
      merge_slashes: true,
      path_with_escaped_slashes_action: 'REJECT_REQUEST',
      common_http_protocol_options: { idle_timeout: '600s', headers_with_underscores_action: 'REJECT_REQUEST', max_headers_count: 100 },
    });
    expect(hcm(edge).http2_protocol_options).to.include({
      max_concurrent_streams: 100,
      initial_stream_window_size: 65536,
      initial_connection_window_size: 1048576,
    });
    const { admin, overload_manager } = edge.bootstrap as Any;
    expect(admin.address.pipe).to.deep.equal({ path: join(folder, 'admin.sock'), mode: 0o600 });
    expect(admin.allow_paths.map((one: Any) => one.exact ?? one.prefix)).to.not.include.members(['/', '/config_dump', '/quitquitquit']);
    expect(overload_manager.actions.length).to.equal(2);
  });

  it('changes the name of the descriptor with its content, and keeps the one before', () => {
    const names = () => readdirSync(folder).filter((name) => name.endsWith('.binpb'));
    const first = make();
    write(first, folder);
    const path = join(folder, 'lds.json');
    expect(readFileSync(path, 'utf8')).to.include(first.descriptor.name);
    for (const name of ['edge-second.binpb', 'edge-third.binpb']) {
      const bytes = Uint8Array.from([...first.descriptor.bytes]);
      const listener = JSON.parse(JSON.stringify(first.listener).replaceAll(first.descriptor.name, name)) as Fields;
      write({ ...first, descriptor: { name, bytes }, listener }, folder);
    }
    expect(names().sort()).to.deep.equal(['edge-second.binpb', 'edge-third.binpb']);
    expect(readdirSync(folder).filter((name) => name.endsWith('.new'))).to.deep.equal([]);
  });

  it('is written by the command line', () => {
    const env = { ...ENV, MILLRACE_ENVOY: ENVOY };
    const said = execFileSync(process.execPath, ['envoy/generate.ts', `--out=${folder}`, '--validate'], { env, encoding: 'utf8' });
    expect(said).to.include('Envoy accepts it');
    expect(readdirSync(folder)).to.include.members(['envoy.json', 'cds.json', 'lds.json', 'rds.json', 'validate.json']);
    const { MILLRACE_PUBLIC_URL: _, ...less } = env;
    const refused = spawnSync(process.execPath, ['envoy/generate.ts', `--out=${folder}`], { env: less, encoding: 'utf8' });
    expect([refused.status, refused.stderr]).to.satisfy(
      ([code, text]: [number, string]) => code === 2 && text.includes('MILLRACE_PUBLIC_URL: '),
    );
  });

  it('matches paths as the rules of google.api.http do', () => {
    const matches = (template: string, path: string) => new RegExp(`^(?:${pathPattern(template)})$`).test(path);
    const cases: [string, string, boolean][] = [
      ['/v1/tasks/{id}', '/v1/tasks/a', true],
      ['/v1/tasks/{id}', '/v1/tasks/a/b', false],
      ['/v1/tasks/{id}', '/v1/tasks/', false],
      ['/v1/tasks/{id}', '/v1/tasks/a:cancel', false],
      ['/v1/tasks/{id}:cancel', '/v1/tasks/a:cancel', true],
      ['/v1/tasks/{id}:cancel', '/v1/tasks/a:cancelled', false],
      ['/.well-known/jwks.json', '/.well-known/jwks.json', true],
      ['/.well-known/jwks.json', '/xwell-known/jwks-json', false],
      ['/v1/{task.name=tasks/*}', '/v1/tasks/a', true],
      ['/v1/{task.name=tasks/*}', '/v1/jobs/a', false],
      ['/v1/{file=**}', '/v1/a/b/c', true],
    ];
    for (const [template, path, fits] of cases) expect(matches(template, path), `${template} ${path}`).to.equal(fits);
  });
});

function edit(edge: Edge, change: (folded: Any) => void): Edge {
  const folded = structuredClone(edge.folded);
  change(folded);
  return { ...edge, folded };
}
