// The contracts as the descriptor image tells them: every method with its policy and its REST paths, and what each role may do.
import { readFileSync } from 'node:fs';
import {
  createFileRegistry,
  type DescEnum,
  type DescMessage,
  type DescMethod,
  type FileRegistry,
  fromBinary,
  getOption,
  hasOption,
  toBinary,
} from '@bufbuild/protobuf';
import { FileDescriptorSetSchema, MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt';
import { HttpRule } from '#gen/google/api/http.ts';
import { PermissionGrant, permissionToJSON, roleToJSON } from '#gen/millrace/options/v1/permission.ts';
import {
  Access,
  accessToJSON,
  auditClassToJSON,
  type Idempotency,
  idempotencyToJSON,
  MethodPolicy,
  RateLimit,
  rateClassToJSON,
} from '#gen/millrace/options/v1/policy.ts';

export interface Binding {
  verb: string;
  path: string;
  body: string;
}
export interface Method {
  path: string; // /millrace.tasks.v1.TaskService/GetTask
  area: string; // tasks
  service: string; // millrace.tasks.v1.TaskService
  name: string; // GetTask
  access: keyof typeof Access;
  scope: string; // the permission's word in a token; empty unless access is PERMISSION
  services: readonly string[];
  rate: string;
  perUserPerMinute: number;
  perAddressPerMinute: number;
  audit: string;
  idempotency: keyof typeof Idempotency;
  isRead: boolean;
  isStream: boolean;
  deadlineMs: number; // 0: none
  isQueryOpen: boolean; // its REST path takes any query parameters
  bindings: readonly Binding[];
  desc: DescMethod;
  input: DescMessage;
  output: DescMessage;
}
export interface Contract {
  image: Uint8Array;
  registry: FileRegistry;
  methods: ReadonlyMap<string, Method>;
  scopesOf(role: string): string[];
  rolesOf(scope: string): string[];
}

const DEADLINE_MS = 15_000;

export class ContractFault extends Error {
  override readonly name = 'ContractFault';
}

export function loadContract(path: string): Contract {
  const image = readFileSync(path);
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, image));
  const grants = readGrants(registry);
  const methods = new Map<string, Method>();
  const faults: string[] = [];
  for (const file of registry.files) {
    if (!file.proto.package.startsWith('millrace.')) continue;
    for (const service of file.services) {
      for (const desc of service.methods) {
        try {
          const method = readMethod(registry, desc, grants);
          methods.set(method.path, method);
        } catch (error) {
          faults.push((error as Error).message);
        }
      }
    }
  }
  if (faults.length > 0) throw new ContractFault(faults.join('\n'));
  return {
    image,
    registry,
    methods,
    scopesOf: (role) => [...grants.values()].filter((grant) => grant.roles.some((r) => roleToJSON(r) === role)).map((grant) => grant.scope),
    rolesOf: (scope) => [...grants.values()].find((grant) => grant.scope === scope)?.roles.map(roleToJSON) ?? [],
  };
}

function readMethod(registry: FileRegistry, desc: DescMethod, grants: Map<number, PermissionGrant>): Method {
  const service = desc.parent.typeName;
  const bytes = option(registry, desc, 'millrace.options.v1.policy');
  if (!bytes) throw new ContractFault(`${service}.${desc.name} has no policy: add option (millrace.options.v1.policy)`);
  const policy = MethodPolicy.decode(bytes);
  const isStream = desc.methodKind !== 'unary';
  const limit = rateLimit(registry, policy.rate);
  return {
    path: `/${service}/${desc.name}`,
    area: service.split('.')[1] ?? '',
    service,
    name: desc.name,
    access: accessToJSON(policy.access) as keyof typeof Access,
    scope: policy.access === Access.PERMISSION ? scopeOf(grants, policy.permission) : '',
    services: policy.services,
    rate: rateClassToJSON(policy.rate),
    perUserPerMinute: limit.perUserPerMinute,
    perAddressPerMinute: limit.perAddressPerMinute,
    audit: auditClassToJSON(policy.audit),
    idempotency: idempotencyToJSON(policy.idempotency) as keyof typeof Idempotency,
    isRead: desc.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS,
    isStream,
    deadlineMs: policy.deadlineMs || (isStream ? 0 : DEADLINE_MS),
    isQueryOpen: policy.openQuery,
    bindings: bindings(option(registry, desc, 'google.api.http')),
    desc,
    input: desc.input,
    output: desc.output,
  };
}

function scopeOf(grants: Map<number, PermissionGrant>, permission: number): string {
  const grant = grants.get(permission);
  if (!grant) throw new ContractFault(`${permissionToJSON(permission as never)} has no grant: add option (millrace.options.v1.grant)`);
  return grant.scope;
}

function option(registry: FileRegistry, desc: DescMethod | DescEnum['values'][number], name: string): Uint8Array | undefined {
  const extension = registry.getExtension(name);
  if (!extension) throw new ContractFault(`the image does not hold ${name}: run make gen`);
  if (!hasOption(desc as never, extension as never)) return undefined;
  const value = getOption(desc as never, extension as never);
  return toBinary(extension.message as DescMessage, value as never);
}

function bindings(bytes: Uint8Array | undefined): Binding[] {
  if (!bytes) return [];
  const rule = HttpRule.decode(bytes);
  return [rule, ...rule.additionalBindings].flatMap((one) =>
    (['get', 'post', 'put', 'patch', 'delete'] as const).flatMap((verb) =>
      one[verb] ? [{ verb: verb.toUpperCase(), path: one[verb], body: one.body }] : [],
    ),
  );
}

function readGrants(registry: FileRegistry): Map<number, PermissionGrant> {
  const permissions = registry.getEnum('millrace.options.v1.Permission')?.values ?? [];
  return new Map(
    permissions.flatMap((value) => {
      const bytes = option(registry, value, 'millrace.options.v1.grant');
      return bytes ? [[value.number, PermissionGrant.decode(bytes)] as const] : [];
    }),
  );
}

function rateLimit(registry: FileRegistry, rate: number): RateLimit {
  const value = registry.getEnum('millrace.options.v1.RateClass')?.value[rate];
  const bytes = value && option(registry, value, 'millrace.options.v1.limit');
  return bytes ? RateLimit.decode(bytes) : RateLimit.fromPartial({});
}
