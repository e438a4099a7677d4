// What an event tells, as an administrator may see it: without what the contract marks as sensitive.
import { fromBinary, getOption, hasOption, type JsonObject, type Message, toJson } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import type { Contract } from './contract.ts';

// Undefined when no message of that name is known here, or the data is not one.
export function shown(contract: Contract, schema: string, data: Uint8Array): JsonObject | undefined {
  const desc = contract.registry.getMessage(schema);
  if (!desc) return undefined;
  try {
    const message = reflect(desc, fromBinary(desc, data));
    hide(contract, message);
    return toJson(desc, message.message as Message, { registry: contract.registry }) as JsonObject;
  } catch {
    return undefined;
  }
}

function hide(contract: Contract, message: ReflectMessage): void {
  const sensitive = contract.registry.getExtension('millrace.options.v1.sensitive');
  for (const field of message.fields) {
    if (!message.isSet(field)) continue;
    if (sensitive && hasOption(field as never, sensitive as never) && getOption(field as never, sensitive as never)) message.clear(field);
    else if (field.fieldKind === 'message') hide(contract, message.get(field));
    else if (field.fieldKind === 'list' && field.listKind === 'message')
      for (const one of message.get(field)) hide(contract, one as ReflectMessage);
    else if (field.fieldKind === 'map' && field.mapKind === 'message')
      for (const [, one] of message.get(field)) hide(contract, one as ReflectMessage);
  }
}
