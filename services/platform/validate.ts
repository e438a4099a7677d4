// Checks requests against the rules of the contract (protovalidate) on their wire bytes, and hashes them for idempotency.
import { createHash } from 'node:crypto';
import { create, type DescMessage, fromBinary, getOption, hasOption, type Message, toBinary } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { createValidator, type Violation } from '@bufbuild/protovalidate';
import type { Contract, Method } from './contract.ts';
import { type Fault, fault } from './errors.ts';

export interface Validator {
  check(method: Method, bytes: Uint8Array): void; // throws INVALID_ARGUMENT / FIELD_INVALID
  hash(method: Method, bytes: Uint8Array): Buffer;
  warmUp(services: readonly string[]): void; // the first use of a message's rules takes up to 100 ms
}

export function openValidator(contract: Contract): Validator {
  const validator = createValidator({ registry: contract.registry });
  const sensitive = contract.registry.getExtension('millrace.options.v1.sensitive');
  const isHidden = (field: DescMessage['fields'][number]) =>
    field.name === 'request_id' ||
    (sensitive !== undefined && hasOption(field as never, sensitive as never) && Boolean(getOption(field as never, sensitive as never)));
  // At any depth: the hash of a short secret would tell it.
  const hide = (message: ReflectMessage): void => {
    for (const field of message.fields) {
      if (isHidden(field)) message.clear(field);
      else if (field.fieldKind === 'message' && message.isSet(field)) hide(message.get(field));
    }
  };
  return {
    check(method, bytes) {
      const result = validator.validate(method.input, decoded(method, bytes));
      if (result.kind === 'invalid') throw violated(method, result.violations);
      if (result.kind === 'error') throw result.error;
    },
    hash(method, bytes) {
      const message: ReflectMessage = reflect(method.input, fromBinary(method.input, bytes));
      hide(message);
      return createHash('sha256')
        .update(method.path)
        .update(toBinary(method.input, message.message as Message))
        .digest();
    },
    warmUp(services) {
      for (const { input, service } of contract.methods.values()) if (services.includes(service)) validator.validate(input, create(input));
    },
  };
}

function decoded(method: Method, bytes: Uint8Array): Message {
  try {
    return fromBinary(method.input, bytes);
  } catch {
    throw fault('INVALID_ARGUMENT', 'FIELD_INVALID', `the request is not a ${method.input.typeName}`);
  }
}

function violated(method: Method, violations: readonly Violation[]): Fault {
  const all = violations.map((violation) => ({ field: pathOf(violation), description: violation.message }));
  const known = (method.input.fields.find((field) => field.name === method.bindings[0]?.body)?.message ?? method.input).fields.map(
    (field) => field.jsonName,
  );
  return fault('INVALID_ARGUMENT', 'FIELD_INVALID', all.map((one) => `${one.field}: ${one.description}`).join('; '), {
    violations: all,
    metadata: { fields: known.join(',') },
  });
}

const pathOf = (violation: Violation): string =>
  violation.field
    .map((part) => ('jsonName' in part ? part.jsonName : 'index' in part ? part.index : 'key' in part ? part.key : ''))
    .filter((part) => part !== '')
    .join('.'); // prettier-ignore
