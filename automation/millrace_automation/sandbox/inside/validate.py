"""Whether a source can run and what it takes and returns, without running any of it."""

import ast
import json
import math
import warnings
from typing import Any

from . import schema
from .report import SCRIPT

Function = ast.FunctionDef | ast.AsyncFunctionDef
_NAME = 'main'


def validate(source: str) -> dict[str, Any]:
    """`problems` (line and column from 1, 0: not at one place), `has_main`, `input_schema`, `output_schema` (both null with problems)."""
    result: dict[str, Any] = {'problems': [], 'has_main': False, 'input_schema': None, 'output_schema': None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            module = ast.parse(source, SCRIPT)
            compile(module, SCRIPT, 'exec', dont_inherit=True)  # finds what the grammar allows and the language does not
    except SyntaxError as error:
        result['problems'] = [_problem(error.lineno, error.offset, error.msg)]
        return result
    except (ValueError, MemoryError, RecursionError) as error:  # a NUL, a lone surrogate, nesting beyond what Python can read
        result['problems'] = [_problem(0, 0, str(error) or 'the source is nested too deep')]
        return result
    result['has_main'] = has_main(module)
    main = _main(module)
    if main is not None:
        result['problems'] = _problems_of(main, source)
    if not result['problems']:
        names = schema.Names(module)
        result['input_schema'] = _input_schema(main, names)
        result['output_schema'] = {'$schema': schema.DIALECT} | schema.of_hint(main.returns if main else None, names)
    return result


def has_main(module: ast.Module) -> bool:
    """Whether the top level defines, imports or assigns `main`."""
    for statement in module.body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name == _NAME:
                return True
            case ast.Assign(targets=targets) if any(isinstance(target, ast.Name) and target.id == _NAME for target in targets):
                return True
            case ast.ImportFrom(names=names) if any((name.asname or name.name) == _NAME for name in names):
                return True
    return False


def _main(module: ast.Module) -> Function | None:
    """The definition that counts: the last one."""
    found = [node for node in module.body if isinstance(node, Function) and node.name == _NAME]
    return found[-1] if found else None


def _problem(line: int | None, column: int | None, message: str) -> dict[str, Any]:
    return {'line': max(line or 0, 0), 'column': max(column or 0, 0), 'message': message}


def _problems_of(main: Function, source: str) -> list[dict[str, Any]]:
    """What would keep it from being called with the input's keys."""
    lines = source.splitlines()
    defaults = len(main.args.defaults)
    positional = main.args.posonlyargs
    required = positional[: max(0, len(positional) + len(main.args.args) - defaults)]
    return [
        _problem(
            one.lineno,
            len(lines[one.lineno - 1].encode()[: one.col_offset].decode(errors='replace')) + 1,
            f"main is called by name: the parameter '{one.arg}' must not be positional-only",
        )
        for one in required
    ]


def _input_schema(main: Function | None, names: schema.Names) -> schema.Schema:
    result: schema.Schema = {'$schema': schema.DIALECT, 'type': 'object'}
    if main is None:
        return result
    given = main.args
    parameters = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(parameters) - len(given.defaults)) + list(given.defaults)
    pairs = list(zip(parameters, defaults, strict=True))[len(given.posonlyargs) :] + list(
        zip(given.kwonlyargs, given.kw_defaults, strict=True)
    )
    properties = {parameter.arg: _of_parameter(parameter, default, names) for parameter, default in pairs}
    required = [parameter.arg for parameter, default in pairs if default is None]
    result['properties'] = properties
    if required:
        result['required'] = required
    result['additionalProperties'] = given.kwarg is not None
    return result


def _of_parameter(parameter: ast.arg, default: ast.expr | None, names: schema.Names) -> schema.Schema:
    result = schema.of_hint(parameter.annotation, names)
    if default is None:
        return result
    try:
        value = ast.literal_eval(default)
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return result  # computed when the script is loaded
    if isinstance(value, tuple) or (isinstance(value, float) and not math.isfinite(value)):
        return result
    if value is None:
        result = schema.nullable(result)
    return {**result, 'default': value}
