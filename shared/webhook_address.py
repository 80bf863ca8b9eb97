"""Where a webhook may go: the form of its URL, and the addresses that nothing is ever sent to."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MOST_URL_CHARACTERS = 2000
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_PLACE = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")
# What C libraries read as an address: 2130706433, 0x7f000001, 127.1, 0177.0.0.1.
_NUMBER = re.compile(r"(?:[0-9]+|0[xX][0-9A-Fa-f]*)")

#: Whatever WEBHOOK_ALLOW_CIDRS lists. An address that carries another one inside is refused as it is: what
#: it leads to is decided by a router, and not by us.
NEVER: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # unspecified: this machine
        "100.100.100.200/32",  # a cloud's metadata, as are the five marked so below
        "168.63.129.16/32",  # metadata
        "169.254.0.0/16",  # link-local, metadata among them
        "192.0.0.0/24",  # protocol assignments, metadata among them
        "192.88.99.0/24",  # relays to 6to4
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast among them
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64 of one's own
        "100::/64",  # discarded
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fd00:42::42/128",  # metadata
        "fd00:ec2::/32",  # metadata
        "fd20:ce::254/128",  # metadata
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
)
_LOOPBACK = ip_address("::1")
#: The unspecified address, and IPv4 behind zeros; loopback lies in it and is judged apart.
_ZEROS = ip_network("::/96")
_GLOBAL_UNICAST = ip_network("2000::/3")


class ForbiddenAddress(ValueError):
    """The URL leads to an address that nothing is sent to."""


@dataclass(frozen=True)
class Target:
    """A URL in parts, each as it is used: the same reading checks it and connects."""

    scheme: str
    #: A name in lower case, or an address without brackets.
    host: str
    port: int
    #: For the `Host` header.
    authority: str
    #: Path and query.
    path: str


def parse_target(url: str) -> Target:
    """Return the parts of a webhook's URL.

    Raises:
        ValueError: saying what was expected.
        ForbiddenAddress: if its host is a number that is no address in the usual form.
    """
    if len(url) > MOST_URL_CHARACTERS:
        raise ValueError(f"Expected a URL of at most {MOST_URL_CHARACTERS} characters. Received: {len(url)}")
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise ValueError("Expected a URL of printable ASCII: an international name as xn--, the rest as %XX.")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("Expected a URL that begins with https:// or http://.")
    if "@" in parts.netloc:
        raise ValueError("Expected a URL without a user or a password.")
    if "#" in url:
        raise ValueError("Expected a URL without a fragment.")
    place = _PLACE.fullmatch(parts.netloc)
    if place is None:
        raise ValueError("Expected the name or the address of a host, and perhaps a port.")
    port = int(place["port"] or (443 if parts.scheme == "https" else 80))
    if not 0 < port < 65_536:
        raise ValueError("Expected a port from 1 to 65535.")
    return Target(
        scheme=parts.scheme,
        host=_address(place["address"]) if place["address"] else _name(place["name"]),
        port=port,
        authority=parts.netloc.lower(),
        path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


def _address(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise ValueError("Expected an IPv6 address between the brackets.") from None


def _name(text: str) -> str:
    if not _NAME.fullmatch(text) or len(text) > 253:
        raise ValueError("Expected the name or the address of a host.")
    if _NUMBER.fullmatch(text.rstrip(".").rpartition(".")[2]):
        try:
            return str(IPv4Address(text))
        except ValueError:
            raise ForbiddenAddress("Expected an address as four decimal numbers.") from None
    return text.lower()


def check_url(url: str, allowed: Iterable[Network]) -> None:
    """Return if a webhook may have this URL; a name is looked up only when something is sent.

    Raises:
        ValueError: if it is none, or one that is not accepted.
        ForbiddenAddress: if its host is an address that nothing is sent to, or the name of this machine.
    """
    host = parse_target(url).host
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        host = "127.0.0.1"
    try:
        address = ip_address(host)
    except ValueError:
        return
    if not may_connect(address, allowed):
        raise ForbiddenAddress("Expected an address that is reached over the Internet.")


def may_connect(address: Address, allowed: Iterable[Network]) -> bool:
    """Tell whether something may be sent there: to a global address, or to one of a network in `allowed`."""
    if any(address in network for network in NEVER):
        return False
    if address in _ZEROS and address != _LOOPBACK:
        return False
    if any(address in network for network in allowed):
        return True
    return address.is_global and (address.version == 4 or address in _GLOBAL_UNICAST)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a list such as `127.0.0.0/8, fd12::/16`.

    Raises:
        ValueError: if one is not a network.
    """
    return tuple(ip_network(item.strip()) for item in text.split(",") if item.strip())
