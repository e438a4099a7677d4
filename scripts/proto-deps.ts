// Assembles the third-party protos that ours import into build/proto-deps, from installed packages.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto } from '@bufbuild/protobuf/wkt';
import { FieldDescriptorProto_Label, FieldDescriptorProto_Type } from '@bufbuild/protobuf/wkt';
import { file_buf_validate_validate } from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js';

const OUT = 'build/proto-deps';

// Where each copied file comes from: [folder, path below it, path it is imported by].
const COPIES = (site: string): [string, string, string][] => [
  ...['annotations', 'http', 'httpbody', 'field_behavior'].map((f): [string, string, string] => [
    site,
    `google/api/${f}.proto`,
    `google/api/${f}.proto`,
  ]),
  ...['status', 'error_details', 'code'].map((f): [string, string, string] => [site, `google/rpc/${f}.proto`, `google/rpc/${f}.proto`]),
  ['node_modules/grpc-health-check/proto', 'health/v1/health.proto', 'grpc/health/v1/health.proto'],
  ['node_modules/@grpc/reflection/build/proto', 'grpc/reflection/v1/reflection.proto', 'grpc/reflection/v1/reflection.proto'],
  ['node_modules/@grpc/reflection/build/proto', 'grpc/reflection/v1alpha/reflection.proto', 'grpc/reflection/v1alpha/reflection.proto'],
];

// The one proto that no package ships as source is printed from its descriptor: messages, enums, ranges and extensions, no options.
export function printProto(file: FileDescriptorProto): string {
  const isProto2 = file.syntax !== 'proto3';
  const imports = file.dependency.map((path) => `import "${path}";\n`).join('');
  const extensions = file.extension.map((x) => `extend ${x.extendee} {\n${field(x, '  ', isProto2, false)}}\n`).join('');
  return (
    `syntax = "${file.syntax || 'proto2'}";\npackage ${file.package};\n${imports}` +
    file.enumType.map((e) => enumeration(e, '')).join('') +
    file.messageType.map((m) => message(m, '', isProto2)).join('') +
    extensions
  );
}

function message(m: DescriptorProto, pad: string, isProto2: boolean): string {
  const inner = `${pad}  `;
  const isMember = (f: FieldDescriptorProto) => Object.hasOwn(f, 'oneofIndex') && !f.proto3Optional;
  const parts = [
    ...m.enumType.map((e) => enumeration(e, inner)),
    ...m.nestedType.map((n) => message(n, inner, isProto2)),
    ...m.field.filter((f) => !isMember(f)).map((f) => field(f, inner, isProto2, false)),
    ...m.oneofDecl.map((o, index) => {
      const members = m.field.filter((f) => isMember(f) && f.oneofIndex === index);
      if (members.length === 0) return ''; // made by the compiler for an optional field
      return `${inner}oneof ${o.name} {\n${members.map((f) => field(f, `${inner}  `, isProto2, true)).join('')}${inner}}\n`;
    }),
    ...m.extensionRange.map((r) => `${inner}extensions ${r.start} to ${(r.end ?? 0) >= 536_870_912 ? 'max' : (r.end ?? 0) - 1};\n`),
    ...m.reservedRange.map((r) => `${inner}reserved ${r.start} to ${(r.end ?? 0) - 1};\n`),
  ];
  return `${pad}message ${m.name} {\n${parts.join('')}${pad}}\n`;
}

function field(f: FieldDescriptorProto, pad: string, isProto2: boolean, inOneof: boolean): string {
  const type = f.typeName || FieldDescriptorProto_Type[f.type].toLowerCase();
  return `${pad}${label(f, isProto2, inOneof)}${type} ${f.name} = ${f.number}${f.defaultValue ? ` [default = ${f.defaultValue}]` : ''};\n`;
}

function label(f: FieldDescriptorProto, isProto2: boolean, inOneof: boolean): string {
  if (f.label === FieldDescriptorProto_Label.REPEATED) return 'repeated ';
  if (f.label === FieldDescriptorProto_Label.REQUIRED) return 'required ';
  return !inOneof && (isProto2 || f.proto3Optional) ? 'optional ' : '';
}

const enumeration = (e: EnumDescriptorProto, pad: string): string =>
  `${pad}enum ${e.name} {\n${e.value.map((v) => `${pad}  ${v.name} = ${v.number};\n`).join('')}${pad}}\n`;

export function assemble(): void {
  const write = (path: string) => {
    const to = join(OUT, path);
    mkdirSync(dirname(to), { recursive: true });
    return to;
  };
  writeFileSync(write('buf/validate/validate.proto'), printProto(file_buf_validate_validate.proto));
  const site = execFileSync('.venv/bin/python', ['-c', 'import google.rpc; print(google.rpc.__path__[0][: -len("/google/rpc")])']);
  for (const [folder, path, as] of COPIES(site.toString().trim())) copyFileSync(join(folder, path), write(as));
}

if (import.meta.main) assemble();
