"""Ids as the other services write them: a prefix and a UUIDv7 as 26 characters of lower-case Crockford base32."""

import os
import time

_ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'


def new_id(prefix: str) -> str:
    return f'{prefix}_{encode(_uuid7())}'


def encode(value: int) -> str:
    """128 bits, most significant first; the first character holds the upper 3 bits, so that ids sort as their numbers do."""
    return ''.join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def _uuid7() -> int:
    """RFC 9562, section 5.7: 48 bits of Unix time in ms, version, 12 random bits, variant, 62 random bits."""
    random = int.from_bytes(os.urandom(10), 'big')
    milliseconds = time.time_ns() // 1_000_000
    return (milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | (random >> 62 & 0xFFF) << 64 | 2 << 62 | random & (1 << 62) - 1
