import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { contractFaults, sourceImage } from './contract-lint.ts';

const GOOD = `
  // Answers a thing.
  //
  // **Errors:** NOT_FOUND / RESOURCE_NOT_FOUND.
  rpc GetThing(GetThingRequest) returns (Thing) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {get: "/v1/things/{id}"};
    option (millrace.options.v1.policy) = {access: PERMISSION permission: TASKS_READ rate: READ};
  }
  // Makes a thing.
  //
  // **Errors:** ALREADY_EXISTS / IDEMPOTENCY_KEY_REUSED.
  rpc CreateThing(CreateThingRequest) returns (Thing) {
    option (google.api.http) = {post: "/v1/things" body: "*"};
    option (millrace.options.v1.policy) = {access: PERMISSION permission: TASKS_WRITE rate: WRITE idempotency: STORED};
  }
  // Internal. Moves a thing.
  //
  // **Errors:** none.
  rpc MoveThing(GetThingRequest) returns (Thing) {
    option (millrace.options.v1.policy) = {access: SERVICE services: ["tasks"] idempotency: NATURAL};
  }
`;

describe('the policy of contracts', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'millrace-contract-'));
    for (const path of ['proto/millrace/options', 'build/proto-deps', 'buf.yaml']) cpSync(path, join(folder, path), { recursive: true });
    mkdirSync(join(folder, 'proto/millrace/things/v1'), { recursive: true });
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  function faultsOf(methods: string): string[] {
    const source = `syntax = "proto3";
package millrace.things.v1;
import "google/api/annotations.proto";
import "millrace/options/v1/policy.proto";
service ThingService {${methods}}
message Thing {string id = 1;}
message GetThingRequest {string id = 1;}
message CreateThingRequest {string request_id = 1;}
`;
    writeFileSync(join(folder, 'proto/millrace/things/v1/thing_service.proto'), source);
    return contractFaults(sourceImage(folder));
  }
  const changed = (from: string, to: string): string[] => {
    expect(GOOD).to.contain(from);
    return faultsOf(GOOD.replace(from, to));
  };

  it('is accepted when it is complete', () => expect(faultsOf(GOOD)).to.deep.equal([]));

  const cases: [string, string, string, RegExp][] = [
    [
      'a method without one',
      'option (millrace.options.v1.policy) = {access: PERMISSION permission: TASKS_READ rate: READ};',
      '',
      /GetThing: it has no policy/,
    ],
    ['no access', 'access: PERMISSION permission: TASKS_READ rate', 'rate', /names no access/],
    ['access by permission without one', 'permission: TASKS_READ ', '', /a permission is set exactly/],
    [
      'a permission that is not asked for',
      'access: PERMISSION permission: TASKS_READ',
      'access: PUBLIC permission: TASKS_READ',
      /a permission is set exactly/,
    ],
    [
      'a REST path for services only',
      'option (millrace.options.v1.policy) = {access: SERVICE',
      'option (google.api.http) = {get: "/v1/move"}; option (millrace.options.v1.policy) = {access: SERVICE',
      /no http rule/,
    ],
    ['services that are not named', 'services: ["tasks"] ', '', /names those that may call/],
    [
      'services beside public access',
      'access: PERMISSION permission: TASKS_READ',
      'access: PUBLIC services: ["tasks"]',
      /services are named only/,
    ],
    ['no REST path for users', 'option (google.api.http) = {post: "/v1/things" body: "*"};', '', /has an http rule/],
    ['no rate class', ' rate: READ', '', /a rate class is set exactly/],
    ['a rate class for services', 'access: SERVICE', 'access: SERVICE rate: READ', /a rate class is set exactly/],
    ['a change without an idempotency class', ' idempotency: STORED', '', /idempotency is unset exactly/],
    ['a read with an idempotency class', 'rate: READ', 'rate: READ idempotency: NATURAL', /idempotency is unset exactly/],
    ['a stored key without a place for it', 'CreateThing(CreateThingRequest)', 'CreateThing(GetThingRequest)', /has a request_id/],
    ['errors that are not written down', '// **Errors:** NOT_FOUND / RESOURCE_NOT_FOUND.', '// Often.', /the comment ends with/],
  ];
  it('is refused: a stream with a deadline', () => {
    const stream = GOOD.replace('returns (Thing)', 'returns (stream Thing)').replace('rate: READ', 'rate: READ deadline_ms: 1000');
    expect(faultsOf(stream).join('\n')).to.match(/a stream has no deadline/);
  });
  for (const [what, from, to, fault] of cases) {
    it(`is refused: ${what}`, () => expect(changed(from, to).join('\n')).to.match(fault));
  }
});
