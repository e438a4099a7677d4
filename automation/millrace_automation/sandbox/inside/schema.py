"""JSON Schema (2020-12) from type hints, read off the syntax tree: nothing of the script is executed."""

import ast
from typing import Any

Schema = dict[str, Any]

DIALECT = 'https://json-schema.org/draft/2020-12/schema'
_DEPTH = 20
_MOST_HINTS = 2000  # looked at in one source: names for hints can be nested so that their number explodes
_PLAIN: dict[str, Schema] = {
    'str': {'type': 'string'},
    'int': {'type': 'integer'},
    'float': {'type': 'number'},
    'bool': {'type': 'boolean'},
    'None': {'type': 'null'},
    'list': {'type': 'array'},
    'dict': {'type': 'object'},
    'datetime.datetime': {'type': 'string', 'format': 'date-time'},
    'datetime.date': {'type': 'string', 'format': 'date'},
    'datetime.time': {'type': 'string', 'format': 'time'},
}
_LISTS = {'list', 'typing.List', 'typing.Sequence', 'typing.Iterable', 'collections.abc.Sequence', 'collections.abc.Iterable'}
_DICTS = {'dict', 'typing.Dict', 'typing.Mapping', 'collections.abc.Mapping'}
_ANYTHING: Schema = {}


class Names:
    """What the names of a module mean: imports and plain assignments at its top level."""

    def __init__(self, module: ast.Module):
        self._imported: dict[str, str] = {}
        self._assigned: dict[str, ast.expr] = {}
        self._left = _MOST_HINTS
        for statement in module.body:
            match statement:
                case ast.Import(names=names):
                    for name in names:
                        self._imported[name.asname or name.name.split('.')[0]] = name.name if name.asname else name.name.split('.')[0]
                case ast.ImportFrom(module=str(origin), names=names, level=0):
                    for name in names:
                        self._imported[name.asname or name.name] = f'{origin}.{name.name}'
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self._assigned[name] = value
                case ast.ClassDef(name=name):
                    self._imported[name] = f'.{name}'  # a class of the script: never what its name says elsewhere

    def spend(self) -> bool:
        """Whether one more hint may be looked at."""
        self._left -= 1
        return self._left > 0

    def meaning(self, node: ast.expr) -> str:
        """The full dotted name, '' for what is none."""
        match node:
            case ast.Name(id=name):
                return self._imported.get(name, '' if name in self._assigned else name)
            case ast.Attribute(value=value, attr=name):
                return f'{before}.{name}' if (before := self.meaning(value)) else ''
            case ast.Constant(value=None):
                return 'None'
        return ''

    def alias(self, node: ast.expr) -> ast.expr | None:
        return self._assigned.get(node.id) if isinstance(node, ast.Name) else None


def of_hint(hint: ast.expr | None, names: Names, depth: int = 0) -> Schema:
    """What cannot be said in JSON Schema, or is not known, accepts anything."""
    if hint is None or depth > _DEPTH or not names.spend():
        return dict(_ANYTHING)
    if (alias := names.alias(hint)) is not None:
        return of_hint(alias, names, depth + 1)
    match hint:
        case ast.Constant(value=str(text)):
            try:
                return of_hint(ast.parse(text.strip(), mode='eval').body, names, depth + 1)
            except (SyntaxError, ValueError, MemoryError, RecursionError):
                return dict(_ANYTHING)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _any_of([left, right], names, depth)
        case ast.Subscript(value=generic, slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _of_generic(names.meaning(generic), parts, names, depth)
    meaning = names.meaning(hint)
    if meaning in _LISTS:
        meaning = 'list'
    elif meaning in _DICTS:
        meaning = 'dict'
    return dict(_PLAIN.get(meaning, _ANYTHING))


def _of_generic(meaning: str, parts: list[ast.expr], names: Names, depth: int) -> Schema:
    if meaning in _LISTS and len(parts) == 1:
        return _with({'type': 'array'}, 'items', of_hint(parts[0], names, depth + 1))
    if meaning in _DICTS and len(parts) == 2:
        return _with({'type': 'object'}, 'additionalProperties', of_hint(parts[1], names, depth + 1))
    match meaning.removeprefix('typing_extensions.').removeprefix('typing.'):
        case 'Optional' if len(parts) == 1:
            return _any_of([parts[0], ast.Constant(value=None)], names, depth)
        case 'Union':
            return _any_of(parts, names, depth)
        case 'Annotated' | 'Final' | 'Required' if parts:
            return of_hint(parts[0], names, depth + 1)
        case 'Literal':
            return _of_literals(parts)
    return dict(_ANYTHING)


def _with(schema: Schema, key: str, inner: Schema) -> Schema:
    return {**schema, key: inner} if inner else schema


def _any_of(parts: list[ast.expr], names: Names, depth: int) -> Schema:
    found: list[Schema] = []
    for part in parts:
        schema = of_hint(part, names, depth + 1)
        for one in schema['anyOf'] if list(schema) == ['anyOf'] else [schema]:
            if one not in found:
                found.append(one)
    if {} in found:
        return dict(_ANYTHING)
    if len(found) == 1:
        return found[0]
    if all(set(one) == {'type'} and isinstance(one['type'], str) for one in found):
        return {'type': [one['type'] for one in found]}
    return {'anyOf': found}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    if not schema or schema.get('type') == 'null':
        return schema
    if set(schema) == {'type'}:
        kinds = schema['type'] if isinstance(schema['type'], list) else [schema['type']]
        return schema if 'null' in kinds else {'type': [*kinds, 'null']}
    options = schema['anyOf'] if list(schema) == ['anyOf'] else [schema]
    return schema if {'type': 'null'} in options or None in schema.get('enum', []) else {'anyOf': [*options, {'type': 'null'}]}


def _of_literals(parts: list[ast.expr]) -> Schema:
    values = []
    for part in parts:
        try:
            value = ast.literal_eval(part)
        except ValueError:
            return dict(_ANYTHING)
        if not isinstance(value, str | int | bool | None):
            return dict(_ANYTHING)
        values.append(value)
    return {'enum': values}
