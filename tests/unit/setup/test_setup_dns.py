"""DNS records and their states, with dig(1) and a name server on loopback."""

import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.missing import missing

from pipehandler.setup import dns

Answer = Callable[[str, int], tuple[int, list[bytes]] | None]
"""The answer of a name server for a name and a type: RCODE and data of the records (RFC 1035); None: no answer."""

TXT, MX, A, SERVFAIL, NXDOMAIN = 16, 15, 1, 2, 3


@contextmanager
def server(answer: Answer) -> Iterator[list[str]]:
    """A name server; yields the arguments with which dig queries it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        threading.Thread(target=_serve, args=(udp, answer), daemon=True).start()
        yield ["@127.0.0.1", "-p", str(udp.getsockname()[1]), "+noedns"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", udp.getsockname())


def _serve(udp: socket.socket, answer: Answer) -> None:
    while True:
        query, client = udp.recvfrom(4096)
        if not query:
            return
        labels, position = [], 12
        while length := query[position]:
            labels.append(query[position + 1 : position + 1 + length].decode())
            position += length + 1
        (kind,) = struct.unpack("!H", query[position + 1 : position + 3])
        found = answer(".".join(labels), kind)
        if found is None:
            continue
        code, values = found
        head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(values), 0, 0)
        records = [b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(value)) + value for value in values]
        udp.sendto(head + query[12 : position + 5] + b"".join(records), client)


def text(value: str) -> bytes:
    """The data of a TXT record."""
    return bytes([len(value)]) + value.encode()


@pytest.fixture(autouse=True)
def _dig() -> None:
    if shutil.which("dig") is None:
        missing("dig")


WANTED = dns.records("example.com", "mx.example.com", ["192.0.2.1"])


def test_states() -> None:
    """Each state: the record, another one, none, and an inconclusive answer."""

    def answer(name: str, kind: int) -> tuple[int, list[bytes]] | None:
        return {
            ("example.com", MX): (0, [struct.pack("!H", 5) + b"\x02mx\xc0\x0c"]),
            ("mx.example.com", A): (0, [bytes([192, 0, 2, 7])]),
            ("example.com", TXT): (0, [text("other"), text("v=spf1 -all")]),
            ("_dmarc.example.com", TXT): (0, [text("v=DMARC1; p=none")]),
            ("_mta-sts.example.com", TXT): (NXDOMAIN, []),
            ("_smtp._tls.example.com", TXT): (SERVFAIL, []),
        }[name, kind]

    with server(answer) as resolver:
        assert dns.states(WANTED, resolver) == [
            "exists",
            "another one: 192.0.2.7",
            "exists",
            'another one: "v=DMARC1; p=none"',
            "missing",
            "not checked (DNS answers SERVFAIL)",
        ]


def test_no_answer() -> None:
    """A server that does not answer only makes the lookups give up."""
    with server(lambda *_: None) as resolver:
        assert dns.states(WANTED, resolver) == ["not checked (no answer from DNS)"] * len(WANTED)


def test_without_dig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without dig nothing is looked up, and the states name its package."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dns.states(WANTED) == ["not checked (apt-get install bind9-dnsutils)"] * len(WANTED)


def test_host_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host name that no MX record can have gets a proposal; a host that only listens on loopback gets a warning."""
    monkeypatch.setenv("PATH", str(tmp_path))
    lines = dns.report(["example.com"], "vm", "loopback-only")
    assert lines[0] == "; myhostname is vm, which no MX record can name: postconf -e myhostname=mx.example.com"
    assert lines[2].startswith("example.com. IN MX 10 mx.example.com. ; MX: ")
    assert lines[-1].startswith("; inet_interfaces is loopback-only")
    assert dns.report(["example.com"], "mail.example.net", "all")[1].startswith(
        "example.com. IN MX 10 mail.example.net. "
    )
