"""Which hosts a run may connect to, and which addresses nobody may. Nothing here resolves or connects.

Addresses by IANA's special-purpose address registries, as services/platform/egress.ts has them.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_PORTS = (443,)
DEFAULT_CONNECTIONS = 16
DEFAULT_MIB = 100
_MOST_CONNECTIONS = 128
_NAME = re.compile(r'([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?')  # the last part of an address is no word
_NAME_LENGTH = 253

# No places of the internet: this host, inner networks, shared and reserved ranges, documentation, multicast, metadata of clouds.
_INNER_V4 = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24
192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32
"""
# Of IPv6 only global unicast counts at all; in it, what carries or names an IPv4 address, and what is set aside.
_GLOBAL_V6 = ipaddress.ip_network('2000::/3')
_INNER_V6 = '2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20'

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(names: Iterable[str]) -> list[Network]:
    """Raises ValueError for one that is none."""
    return [ipaddress.ip_network(name) for name in names]


_inner = networks([*_INNER_V4.split(), *_INNER_V6.split()])


def is_public(text: str) -> bool:
    address = ipaddress.ip_address(text)
    if any(address in network for network in _inner):
        return False
    return address.version == 4 or address in _GLOBAL_V6


def may_connect(text: str, allowed: Iterable[Network]) -> bool:
    """`text` is an address that a name was resolved to; `allowed` are the inner networks that the installation leaves open."""
    return is_public(text) or any(ipaddress.ip_address(text) in network for network in allowed)


def name_of(host: str) -> str | None:
    """The host's name as rules have it. None: it is no name, but an address in numbers, however it is written, or nonsense."""
    try:
        name = host.removesuffix('.').lower() if host.isascii() else host.encode('idna').decode()
    except UnicodeError:
        return None
    return name if len(name) <= _NAME_LENGTH and _NAME.fullmatch(name) else None


@dataclass(frozen=True)
class Policy:
    rules: tuple[tuple[str, frozenset[int]], ...]
    max_connections: int = DEFAULT_CONNECTIONS
    max_bytes: int = DEFAULT_MIB << 20

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> 'Policy':
        rules = tuple((host, frozenset(ports or DEFAULT_PORTS)) for host, ports in given['rules'])
        most = min(given['connections'] or DEFAULT_CONNECTIONS, _MOST_CONNECTIONS)
        return cls(rules, most, (given['mib'] or DEFAULT_MIB) << 20)

    def allows(self, name: str, port: int) -> bool:
        return any(port in ports and _fits(host, name) for host, ports in self.rules)


def _fits(host: str, name: str) -> bool:
    if host.startswith('*.'):
        return name.endswith(host[1:]) and len(name) > len(host) - 1
    return name == host
