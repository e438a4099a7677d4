// Checks what buf cannot know: that every method's policy is complete and fits the method, and that its errors are written down.
import { execFileSync } from 'node:child_process';
import { createFileRegistry, type DescMethod, type FileRegistry, fromBinary, getOption, hasOption, toBinary } from '@bufbuild/protobuf';
import { type FileDescriptorProto, FileDescriptorSetSchema, MethodOptions_IdempotencyLevel as Level } from '@bufbuild/protobuf/wkt';
import { Access, Idempotency, MethodPolicy } from '#gen/millrace/options/v1/policy.ts';

const SERVICE_FIELD = 6; // FileDescriptorProto.service
const METHOD_FIELD = 2; // ServiceDescriptorProto.method

interface Subject {
  desc: DescMethod;
  policy: MethodPolicy | undefined;
  hasHttp: boolean;
  comment: string;
}

// A rule answers what is wrong, or nothing.
type Rule = (one: Subject & { policy: MethodPolicy }) => string | false;

const isRead = ({ desc }: Subject): boolean => desc.idempotency === Level.NO_SIDE_EFFECTS;

const rules: readonly Rule[] = [
  ({ policy }) => policy.access === Access.ACCESS_UNSPECIFIED && 'the policy names no access',
  ({ policy }) =>
    (policy.access === Access.PERMISSION) !== (policy.permission !== 0) && 'a permission is set exactly when access is PERMISSION',
  ({ policy, hasHttp }) =>
    policy.access === Access.SERVICE && hasHttp && 'a method for services has no http rule: it is not reachable through the edge',
  ({ policy }) => policy.access === Access.SERVICE && policy.services.length === 0 && 'a method for services names those that may call',
  ({ policy }) =>
    policy.services.length > 0 &&
    policy.access !== Access.SERVICE &&
    policy.access !== Access.PERMISSION &&
    'services are named only with access SERVICE or PERMISSION',
  ({ policy, hasHttp }) => policy.access !== Access.SERVICE && !hasHttp && 'a method for users has an http rule',
  ({ policy }) => (policy.access === Access.SERVICE) !== (policy.rate === 0) && 'a rate class is set exactly when access is not SERVICE',
  (one) =>
    isRead(one) !== (one.policy.idempotency === Idempotency.IDEMPOTENCY_UNSPECIFIED) &&
    'idempotency is unset exactly for methods declared NO_SIDE_EFFECTS',
  ({ policy, desc }) =>
    policy.idempotency === Idempotency.STORED &&
    !desc.input.fields.some((field) => field.name === 'request_id') &&
    'a STORED method has a request_id',
  ({ policy, desc }) => desc.methodKind !== 'unary' && policy.deadlineMs !== 0 && 'a stream has no deadline',
  ({ comment }) =>
    !/\*\*Errors:\*\*\s+\S[\s\S]*\.\s*$/.test(comment) && 'the comment ends with **Errors:**, the codes and reasons, and a full stop',
];

// Every fault of the contracts in a descriptor set that holds the sources' comments.
export function contractFaults(image: Uint8Array): string[] {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, image));
  const faults: string[] = [];
  for (const file of registry.files) {
    if (!file.proto.package.startsWith('millrace.')) continue;
    for (const [index, service] of file.services.entries()) {
      for (const desc of service.methods) {
        const subject = read(registry, file.proto, index, desc);
        const name = `${service.typeName}.${desc.name}`;
        const { policy } = subject;
        if (policy) faults.push(...rules.flatMap((rule) => rule({ ...subject, policy }) || []).map((fault) => `${name}: ${fault}`));
        else faults.push(`${name}: it has no policy; add option (millrace.options.v1.policy)`);
      }
    }
  }
  return faults;
}

function read(registry: FileRegistry, file: FileDescriptorProto, service: number, desc: DescMethod): Subject {
  const bytes = optionOf(registry, desc, 'millrace.options.v1.policy');
  const path = [SERVICE_FIELD, service, METHOD_FIELD, desc.parent.methods.indexOf(desc)].join();
  return {
    desc,
    policy: bytes && MethodPolicy.decode(bytes),
    hasHttp: optionOf(registry, desc, 'google.api.http') !== undefined,
    comment: file.sourceCodeInfo?.location.find((one) => one.path.join() === path)?.leadingComments ?? '',
  };
}

function optionOf(registry: FileRegistry, desc: DescMethod, name: string): Uint8Array | undefined {
  const extension = registry.getExtension(name);
  if (!extension?.message || !hasOption(desc, extension)) return undefined;
  return toBinary(extension.message, getOption(desc, extension) as never);
}

// Contracts with their comments, from the sources below a folder.
export const sourceImage = (folder = '.'): Uint8Array =>
  execFileSync('node_modules/.bin/buf', ['build', folder, '--as-file-descriptor-set', '-o', '-#format=binpb'], { maxBuffer: 64 * 2 ** 20 });

if (import.meta.main) {
  const faults = contractFaults(sourceImage());
  if (faults.length > 0) console.log(faults.join('\n'));
  process.exit(faults.length === 0 ? 0 : 1);
}
