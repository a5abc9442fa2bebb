"""Who a visitor is, and how much one may use."""

import pytest
from starlette.datastructures import Headers

from pipehandler.settings.config import Web
from pipehandler.web.limits import Opened, ProxyError, Streams, TooMany, TrustedProxies, network_of


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),  # whoever connects directly may say what he likes
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "1.1.1.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"),  # the rightmost that is not trusted
        ("127.0.0.1", "1.1.1.1, nonsense", "127.0.0.1"),
        ("127.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("::ffff:127.0.0.1", "2001:db8::5", "2001:db8::5"),
        (None, "203.0.113.9", "203.0.113.9"),
    ],
)
def test_client(peer: str | None, forwarded: str, client: str) -> None:
    """The client is the rightmost hop that is not trusted."""
    proxies = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "unix"])
    assert proxies.client(peer, Headers({"x-forwarded-for": forwarded} if forwarded else {})) == client


def test_secure() -> None:
    """Only a trusted proxy says that the browser used HTTPS."""
    headers = Headers({"x-forwarded-proto": "https"})
    assert TrustedProxies(["127.0.0.1"]).is_secure("127.0.0.1", headers)
    assert not TrustedProxies(["127.0.0.1"]).is_secure("198.51.100.1", headers)
    assert not TrustedProxies([]).is_secure(None, headers)


def test_wrong_proxy() -> None:
    """What is no network is named, with what is expected."""
    with pytest.raises(ProxyError, match=r"web.trusted_proxies has 'nginx'; expected a network"):
        TrustedProxies(["nginx"])


def test_networks() -> None:
    """A network is what one customer has: an IPv4 address, or a /64 of IPv6."""
    assert network_of("203.0.113.9") != network_of("203.0.113.10")
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:203.0.113.9") == network_of("203.0.113.9")
    assert network_of(None) is None


def test_opened() -> None:
    """So many at once, then as they come back within the hour; the error says when."""
    now = 0.0
    opened = Opened(3, lambda: now)
    network = network_of("203.0.113.9")
    for _ in range(3):
        opened.take(network)
    with pytest.raises(TooMany) as refused:
        opened.take(network)
    assert refused.value.seconds == 1201
    opened.take(network_of("203.0.113.10"))
    now = 1201.0
    opened.take(network)
    with pytest.raises(TooMany):
        opened.take(network)


@pytest.mark.parametrize(
    ("limit", "settings", "owner"),
    [
        ("streams", Web(streams=2), True),
        ("streams_per_owner", Web(streams_per_owner=2), True),
        ("streams_per_viewer", Web(streams_per_viewer=2), False),
        ("streams_per_network", Web(streams_per_network=2), True),
    ],
)
def test_streams(limit: str, settings: Web, owner: bool) -> None:
    """Each limit holds alone, and one that ends makes room."""
    streams = Streams(settings)
    same = limit.startswith("streams_per_") and limit != "streams_per_network"
    network = network_of("203.0.113.9")

    def key(number: int) -> bytes:
        return b"k" if same else bytes([number])

    with streams.counted(key(1), owner, network):
        with streams.counted(key(2), owner, network):
            with pytest.raises(TooMany, match=f"^{limit}$"), streams.counted(key(3), owner, network):
                pass
            assert streams.open == 2
        with streams.counted(key(3), owner, network):
            assert streams.open == 2
    assert streams.open == 0
