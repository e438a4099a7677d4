"""Enforces the contract's protovalidate rules on a request. A rule that is not known here fails at start, not silently."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

Fault = tuple[str, str]
Check = Callable[[object], str | None]


def faults_of(message: Message, path: str = '') -> list[Fault]:
    """The fields that break a rule and what is wrong with each."""
    faults: list[Fault] = []
    for rules in _telling(message.DESCRIPTOR):
        name = rules.field.name
        if rules.has_presence and not message.HasField(name):
            if rules.is_required:
                faults.append((f'{path}{name}', 'is required'))
            continue
        value = getattr(message, name)
        for check in rules.checks:
            if fault := check(value):
                faults.append((f'{path}{name}', fault))
        if rules.is_nested:
            parts = enumerate(value) if rules.field.is_repeated else [(None, value)]
            for index, part in parts:
                faults += faults_of(part, f'{path}{name}.' if index is None else f'{path}{name}[{index}].')
    return faults


def require_known_rules(*requests: Descriptor) -> None:
    """Raises NotImplementedError when a contract uses a rule that is not enforced here."""
    seen: set[str] = set()
    waiting = list(requests)
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in seen:
            seen.add(descriptor.full_name)
            waiting += [rules.field.message_type for rules in _plan(descriptor) if rules.field.message_type]


@dataclass(frozen=True, slots=True)
class _Rules:
    field: FieldDescriptor
    has_presence: bool
    is_required: bool
    is_nested: bool
    checks: list[Check]


@cache
def _plan(descriptor: Descriptor) -> list[_Rules]:
    plan = []
    for field in descriptor.fields:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        kind = field.message_type
        is_nested = bool(kind and not kind.GetOptions().map_entry and not kind.full_name.startswith('google.'))
        plan.append(_Rules(field, field.has_presence, rules.required, is_nested, list(_checks(field, rules))))
    return plan


@cache
def _telling(descriptor: Descriptor) -> list[_Rules]:
    """Those of which one could be broken."""
    return [rules for rules in _plan(descriptor) if rules.is_required or rules.is_nested or rules.checks]


def _checks(field: FieldDescriptor, rules: Message) -> Iterator[Check]:
    for kind, constraints in rules.ListFields():
        if kind.name == 'required':
            continue
        for rule, bound in constraints.ListFields():
            make = _RULES.get((kind.name, rule.name))
            if make is None or field.is_repeated:
                raise NotImplementedError(f'{field.full_name}: the rule {kind.name}.{rule.name} is not enforced by this server')
            yield make(bound)


def _number(bound: object) -> float:
    return _seconds(bound) if isinstance(bound, Message) else bound


def _seconds(duration: Message) -> float:
    return duration.seconds + duration.nanos / 1e9


def _least(measure: Callable[[object], float], unit: str = '') -> Callable[[object], Check]:
    def make(bound: object) -> Check:
        least = _number(bound)
        return lambda value: None if measure(value) >= least else f'must be at least {least}{unit}'

    return make


def _most(measure: Callable[[object], float], unit: str = '') -> Callable[[object], Check]:
    def make(bound: object) -> Check:
        most = _number(bound)
        return lambda value: None if measure(value) <= most else f'must be at most {most}{unit}'

    return make


def _among(bound: object) -> Check:
    known = list(bound)
    return lambda value: None if value in known else f'must be one of {", ".join(repr(one) for one in known)}'


def _pattern(bound: object) -> Check:
    pattern = re.compile(str(bound))
    return lambda value: None if pattern.search(value) else f'must match {bound}'


_RULES: dict[tuple[str, str], Callable[[object], Check]] = {
    ('string', 'min_len'): _least(len, ' characters'),
    ('string', 'max_len'): _most(len, ' characters'),
    ('string', 'max_bytes'): _most(lambda value: len(value.encode()), ' bytes'),
    ('string', 'in'): _among,
    ('string', 'pattern'): _pattern,
    ('bytes', 'min_len'): _least(len, ' bytes'),
    ('bytes', 'max_len'): _most(len, ' bytes'),
    ('int32', 'gte'): _least(float),
    ('int32', 'lte'): _most(float),
    ('duration', 'gte'): _least(_seconds, ' s'),
    ('duration', 'lte'): _most(_seconds, ' s'),
}
