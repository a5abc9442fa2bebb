"""Who a visitor is, and how much one may use: the client's network behind trusted proxies, inboxes opened, streams."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeVar

from starlette.datastructures import Headers

from pipehandler.settings.config import Web

Network = IPv4Network | IPv6Network

_K = TypeVar("_K")

UNIX = "unix"
"""In web.trusted_proxies: whatever connects to the Unix socket."""

_IPV4_PREFIX, _IPV6_PREFIX = 32, 64  # what one customer of a provider usually has
_REMEMBERED = 100_000
_HOUR = 3600


class TooMany(Exception):  # it is no error of the program
    """A limit is reached; the text is the name of its key in [web]. seconds: after these, it may be tried again."""

    def __init__(self, limit: str, seconds: int) -> None:
        super().__init__(limit)
        self.seconds = seconds


class ProxyError(ValueError):
    """An entry of web.trusted_proxies is not a network."""


class TrustedProxies:
    """The proxies whose statements about a client are believed. Raises ProxyError."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._unix = False
        self._networks: list[Network] = []
        for each in networks:
            if each == UNIX:
                self._unix = True
                continue
            try:
                self._networks.append(ip_network(each))
            except ValueError as error:
                raise ProxyError(
                    f"web.trusted_proxies has {each!r}; expected a network such as 127.0.0.1 or 10.0.0.0/8, or unix"
                ) from error

    def trusts(self, peer: str | None) -> bool:
        """Whether the peer of a connection is such a proxy; None: it came through the Unix socket."""
        if peer is None:
            return self._unix
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)

    def client(self, peer: str | None, headers: Headers) -> str | None:
        """Return the address of the client: the rightmost hop of X-Forwarded-For that is not trusted, or the peer."""
        hops = [hop.strip() for field in headers.getlist("x-forwarded-for") for hop in field.split(",")]
        client = peer
        while self.trusts(client) and hops:
            client = hops.pop()
            if _address(client) is None:
                return peer
        return client

    def is_secure(self, peer: str | None, headers: Headers) -> bool:
        """Whether a trusted proxy says that the browser used HTTPS."""
        return self.trusts(peer) and headers.get("x-forwarded-proto", "").rpartition(",")[2].strip() == "https"


def network_of(client: str | None) -> Network | None:
    """Return the network that is counted as one visitor: /32 or /64. None for a Unix socket without a proxy that is trusted."""
    address = _address(client) if client is not None else None
    if address is None:
        return None
    return ip_network((address, _IPV4_PREFIX if address.version == 4 else _IPV6_PREFIX), strict=False)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0].strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Opened:
    """How many inboxes each network has opened: a bucket of tokens that fills up in an hour.

    It is in memory: a restart forgets it. The least recently seen networks are forgotten first.
    """

    def __init__(self, per_hour: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_hour = per_hour
        self._now = now
        self._buckets: OrderedDict[Network | None, tuple[float, float]] = OrderedDict()

    def take(self, network: Network | None) -> None:
        """Count one more. Raises TooMany."""
        now = self._now()
        tokens, since = self._buckets.pop(network, (float(self._per_hour), now))
        tokens = min(float(self._per_hour), tokens + (now - since) * self._per_hour / _HOUR)
        if tokens < 1:
            self._buckets[network] = (tokens, now)
            raise TooMany("opened_per_hour", int((1 - tokens) * _HOUR / self._per_hour) + 1)
        self._buckets[network] = (tokens - 1, now)
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)


class Streams:
    """The streams and waiting requests that are open now."""

    def __init__(self, settings: Web) -> None:
        self._settings = settings
        self._by_key: Counter[bytes] = Counter()
        self._by_network: Counter[Network | None] = Counter()
        self.open = 0

    @contextmanager
    def counted(self, key: bytes, owner: bool, network: Network | None) -> Iterator[None]:
        """Count one for as long as the context lasts. Raises TooMany."""
        settings = self._settings
        name = "streams_per_owner" if owner else "streams_per_viewer"
        if self.open >= settings.streams:
            raise TooMany("streams", 30)
        if self._by_key[key] >= getattr(settings, name):
            raise TooMany(name, 10)
        if self._by_network[network] >= settings.streams_per_network:
            raise TooMany("streams_per_network", 10)
        self.open += 1
        self._by_key[key] += 1
        self._by_network[network] += 1
        try:
            yield
        finally:
            self.open -= 1
            _decrease(self._by_key, key)
            _decrease(self._by_network, network)


def _decrease(counter: "Counter[_K]", key: _K) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
