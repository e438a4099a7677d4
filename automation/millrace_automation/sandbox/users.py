"""Outside users for sandboxed processes, one for each: so their limits are counted apart and they cannot reach each other's files."""

import os

# between the containers' range and the last one that every program can print, as systemd's table of user numbers leaves it free
_FIRST, _SPAN = 1_900_000_000, 16_384
_SERVERS = 4096  # two servers on one machine rarely take the same span, and then still have namespaces between them


def user_ranges(most: int) -> list[list[int]]:
    """Ranges of that many users, for one parent each. None when this process may not choose its user."""
    if os.geteuid() != 0:
        return []
    first = _FIRST + os.getpid() % _SERVERS * _SPAN
    span = _SPAN
    if not _is_mapped(first, span):
        start, length = max(_mapped(), key=lambda extent: extent[1])
        span = min(_SPAN, length // 4)
        first = start + length - 2 * span  # below the very last ones, where `nobody` stands
    return [list(range(first + index * most, first + (index + 1) * most)) for index in range(span // most)]


def _mapped() -> list[tuple[int, int]]:
    """First and length of each extent of users that exist in this user namespace."""
    with open('/proc/self/uid_map') as file:
        return [(int(first), int(length)) for first, _, length in (line.split() for line in file)]


def _is_mapped(first: int, length: int) -> bool:
    return any(start <= first and first + length <= start + count for start, count in _mapped())
