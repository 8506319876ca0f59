"""The kind of an IP address: a table of our own, so that it does not change with Python's version.

Source: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890) of 2025; the clouds' documentation for their
metadata services; RFC 6052 for addresses of IPv4 hosts in networks that have IPv6 only.
"""

from __future__ import annotations

import ipaddress
from typing import Final, Literal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Kind = Literal["public", "private", "loopback", "never"]


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_LOOPBACK: Final = _networks("127.0.0.0/8", "::1/128")
#: Services of clouds that hand out credentials, among addresses that are private or even public, and what no receiver
#: can have: not even a deployment that allows private networks means these.
_NEVER: Final = _networks(
    "0.0.0.0/8",  # this network
    "100.100.100.200/32",  # Alibaba Cloud, metadata
    "168.63.129.16/32",  # Azure, wire server
    "169.254.0.0/16",  # link-local: metadata of most clouds
    "192.0.0.0/24",  # protocol assignments; 192.0.0.192 was Oracle Cloud's metadata
    "192.0.2.0/24",  # documentation
    "192.88.99.0/24",  # relays of 6to4
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved
    "2001::/23",  # protocol assignments; Teredo is among them, whose addresses hide others
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4, whose addresses hide others
    "3fff::/20",  # documentation
    "fd00:42::42/128",  # Scaleway, metadata
    "fd00:ec2::/32",  # AWS, metadata, names and time
    "fd20:ce::254/128",  # Google Cloud, metadata
)
_PRIVATE: Final = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "fc00::/7",
    "fec0::/10",
)
_SPECIAL: Final[tuple[tuple[Kind, tuple[Network, ...]], ...]] = (
    ("loopback", _LOOPBACK),
    ("never", _NEVER),
    ("private", _PRIVATE),
)
#: IPv6 addresses that are neither in here nor in a table above are nobody's.
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
#: Prefixes whose last four bytes are the address of the IPv4 host where packets end.
_IPV4_INSIDE: Final = tuple(ipaddress.IPv6Network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96"))


def kind_of(address: Address) -> Kind:
    """Return the kind of *address*; for one that stands for an IPv4 host, that host's."""
    if isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _IPV4_INSIDE):
        return kind_of(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    for kind, networks in _SPECIAL:
        if any(address in network for network in networks):
            return kind
    return "public" if address.version == 4 or address in _GLOBAL_UNICAST else "never"


def place_of(text: str) -> str:
    """Return what is one place on the network: an IPv4 address, or the /64 of an IPv6 one, which one host may have."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
