"""Enforces the contract's protovalidate rules on a request. A rule that is not known here fails at start, not silently."""

from collections.abc import Callable, Iterator
from functools import cache

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

Fault = tuple[str, str]
Check = Callable[[object], str | None]


def faults_of(message: Message, path: str = '') -> list[Fault]:
    """The fields that break a rule and what is wrong with each."""
    faults: list[Fault] = []
    for field, is_required, checks in _plan(message.DESCRIPTOR):
        at = f'{path}{field.name}'
        if field.has_presence and not message.HasField(field.name):
            if is_required:
                faults.append((at, 'is required'))
            continue
        value = getattr(message, field.name)
        faults += [(at, fault) for check in checks if (fault := check(value))]
        if field.message_type and not field.message_type.GetOptions().map_entry and not field.message_type.full_name.startswith('google.'):
            parts = enumerate(value) if field.is_repeated else [(None, value)]
            for index, part in parts:
                faults += faults_of(part, f'{at}.' if index is None else f'{at}[{index}].')
    return faults


def require_known_rules(*requests: Descriptor) -> None:
    """Raises NotImplementedError when a contract uses a rule that is not enforced here."""
    seen: set[str] = set()
    waiting = list(requests)
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in seen:
            seen.add(descriptor.full_name)
            waiting += [field.message_type for field, _, _ in _plan(descriptor) if field.message_type]


@cache
def _plan(descriptor: Descriptor) -> list[tuple[FieldDescriptor, bool, list[Check]]]:
    plan = []
    for field in descriptor.fields:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        plan.append((field, rules.required, list(_checks(field, rules))))
    return plan


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
    return lambda bound: lambda value: None if measure(value) >= _number(bound) else f'must be at least {_number(bound)}{unit}'


def _most(measure: Callable[[object], float], unit: str = '') -> Callable[[object], Check]:
    return lambda bound: lambda value: None if measure(value) <= _number(bound) else f'must be at most {_number(bound)}{unit}'


def _among(bound: object) -> Check:
    known = list(bound)
    return lambda value: None if value in known else f'must be one of {", ".join(repr(one) for one in known)}'


_RULES: dict[tuple[str, str], Callable[[object], Check]] = {
    ('string', 'min_len'): _least(len, ' characters'),
    ('string', 'max_len'): _most(len, ' characters'),
    ('string', 'max_bytes'): _most(lambda value: len(value.encode()), ' bytes'),
    ('string', 'in'): _among,
    ('bytes', 'min_len'): _least(len, ' bytes'),
    ('bytes', 'max_len'): _most(len, ' bytes'),
    ('int32', 'gte'): _least(float),
    ('int32', 'lte'): _most(float),
    ('duration', 'gte'): _least(_seconds, ' s'),
    ('duration', 'lte'): _most(_seconds, ' s'),
}
