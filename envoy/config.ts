// The vocabulary of Envoy's configuration: plain JSON, with names of types spelled once.
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };
export type Fields = { readonly [key: string]: Json };

// A message of an extension, `type.googleapis.com/envoy.extensions.<name>`.
export const extension = (name: string, fields: Fields = {}): Fields => ({
  '@type': `type.googleapis.com/envoy.extensions.${name}`,
  ...fields,
});
export const resource = (name: string, fields: Fields): Fields => ({ '@type': `type.googleapis.com/envoy.config.${name}`, ...fields });

// Switches a filter of the chain on or off for one route.
export const switched = (disabled: boolean): Fields => resource('route.v3.FilterConfig', { disabled, config: {} });

export const seconds = (ms: number): string => `${ms / 1000}s`;

export function hostAndPort(address: string): { host: string; port: number } {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(address.slice(at + 1)) };
}

export function socket(address: string): Fields {
  const { host, port } = hostAndPort(address);
  return { socket_address: { address: host, port_value: port } };
}

export const header = (key: string, value: string, append_action = 'OVERWRITE_IF_EXISTS_OR_ADD'): Fields => ({
  header: { key, value },
  append_action,
});
