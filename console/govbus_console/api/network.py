"""Who calls, from where, and which addresses a token may be sent to in the clear. Pure.

1. A caller's address is that of its connection. What `X-Forwarded-For` says is believed from
   the proxies that the settings list, and from nobody else: anybody can write the header.
2. Through a list of proxies the caller is the last address that is not one of theirs. Where
   the header holds something that is no address, the proxy itself counts as the caller.
3. Where a proxy speaks TLS for an API that does not, nobody but the proxies and this machine
   is answered: any other caller has sent its token readably across the network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from govbus.errors import ConfigurationError, NotAllowedError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def networks(listed: str) -> tuple[Network, ...]:
    """Addresses and networks, joined by commas.

    Raises:
        ConfigurationError: one of them is neither; a word for "everybody" is not one either.
    """
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in listed.split(",") if part.strip())
    except ValueError:
        raise ConfigurationError(
            "GOVBUS_API_TRUSTED_PROXIES: write addresses or networks joined by commas, "
            "e.g. 10.0.0.7,10.1.0.0/24"
        ) from None


class Peers:
    """Tells a connection's caller from what came with it."""

    def __init__(self, proxies: Iterable[Network], *, tls: bool) -> None:
        """Know the proxies, and whether this process itself speaks TLS."""
        self._proxies = tuple(proxies)
        self._tls = tls

    def caller(self, peer: str | None, forwarded: Sequence[str]) -> str:
        """The address that limits count by.

        Args:
            peer: at the other end of the connection; None: not known.
            forwarded: every ``X-Forwarded-For`` header, in the order in which they came.

        Raises:
            NotAllowedError: it does not come by a proxy, and its token crossed the network readably.
        """
        at = _address(peer or "")
        if not self._trusted(at):
            if self._proxies and not self._tls and not (at is not None and at.is_loopback):
                raise NotAllowedError("this is reached by its proxy, which speaks TLS, and in no other way")
            return peer or "unknown"
        found = at
        for part in reversed(",".join(forwarded).split(",")):
            address = _address(part.strip())
            if address is None:
                return str(found)
            found = address
            if not self._trusted(address):
                break
        return str(found)

    def _trusted(self, address: _Address | None) -> bool:
        return address is not None and any(address in network for network in self._proxies)


def _address(text: str) -> _Address | None:
    """An address as proxies write it: bare, with a port, or in brackets."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    # As a socket that takes both kinds names a caller of the old one.
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
