"""A real Postfix in front of four shards, one of which is killed."""

import re
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

import pytest
from harness import account
from harness.handler import Handler
from harness.lmtp import Receiving, receiving
from harness.mailhost import MailHost
from harness.service import wait_until
from harness.shards import COUNT, Shards
from harness.submission import MESSAGE

SCALING = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()


@pytest.fixture
def host(_postfix: None, shards: Shards) -> Iterator[MailHost]:
    """A mail host whose database is the proxy, and which asks it at RCPT TO."""
    with account.folder("pipehandler-mx-") as folder:
        host = MailHost(folder, shards.proxy.conninfo)
        host.ask_the_pool()
        for name in ("minimal", "maximal"):
            host.postconf("-e", f"{name}_backoff_time = 600s")
        host.start()
        yield host
        host.stop()


def test_a_killed_shard(host: MailHost, shards: Shards) -> None:
    """Mail for the others is delivered, its own stays in the queue; after its return all is there once."""
    addresses = shards.addresses("example.com")
    for address in addresses:
        shards.proxy.execute("SELECT pipehandler.lease_address(%s)", address)
    host.send(MESSAGE, "sender@example.org", *addresses)
    host.drain()
    shards.of[2].server.stop(SIGKILL)
    second = MESSAGE.replace(b"<1@", b"<2@")
    host.send(second, "sender@example.org", *addresses)
    for number, address in enumerate(addresses):
        status = "deferred" if number == 2 else "sent"
        wait_until(lambda address=address, status=status: status in _statuses(host, address)[1:], f"{status} {address}")  # type: ignore[misc]
    assert [recipient["address"] for each in host.queue() for recipient in each["recipients"]] == [addresses[2]]  # type: ignore[attr-defined]
    shards.of[2].server.start()
    (host.handler.state / "outages" / "2").unlink(missing_ok=True)
    host.flush()
    host.drain()
    stored = [each.partition(" ")[2] for each in shards.deliveries()]
    assert [stored.count(address) for address in addresses] == [2] * COUNT


def _statuses(host: MailHost, address: str) -> list[str]:
    return [attempt["status"] for attempt in host.deliveries(address)]


def test_a_shard_freezes_under_postfix(host: MailHost, shards: Shards) -> None:
    """The processes of Postfix that were connected to it answer for each address: 450 where it has that of the frozen shard,
    as before for the others; with the lines of docs/scaling.md."""
    (block,) = re.findall(r"^   ```text\n   (cd /etc/postfix\n.*?)^   ```$", SCALING, re.MULTILINE | re.DOTALL)
    commands = block.replace("/etc/postfix", str(host.config)).replace("postconf", f"postconf -c {host.config}")
    subprocess.run(["bash", "-ec", commands], check=True)
    host.reload()
    addresses = shards.addresses(prefix="frozen")
    for address in addresses:
        shards.proxy.execute("SELECT pipehandler.lease_address(%s)", address)
    unknown = "unknown@example.com"

    def answers() -> list[int]:
        with smtplib.SMTP("127.0.0.1", host.port, timeout=60) as dialogue:
            dialogue.ehlo()
            dialogue.mail("sender@example.org")
            return [dialogue.rcpt(address)[0] for address in (*addresses, unknown)]

    frozen = next(number for number in range(COUNT) if number != shards.number(unknown))
    wanted = [250] * COUNT + [550]
    assert answers() == wanted
    shards.of[frozen].server.freeze()
    try:
        wanted[frozen] = 450
        assert answers() == wanted
        assert answers() == wanted
    finally:
        shards.of[frozen].server.thaw()


@pytest.fixture
def lmtp(shards: Shards) -> Iterator[Receiving]:
    """The service with LMTP, in front of the proxy."""
    with account.folder("pipehandler-") as folder, receiving(Handler(folder, shards.proxy.conninfo)) as running:
        yield running


def test_replies_of_lmtp(lmtp: Receiving, shards: Shards) -> None:
    """Each recipient has the reply of its own shard, in the order in which they were named."""
    addresses = shards.addresses("lmtp.example")
    shards.of[1].server.stop(SIGKILL)
    first = lmtp.deliver(MESSAGE, *addresses)
    assert [reply[:3] for reply in first] == ["250", "451", "250", "250"]
    shards.of[1].server.start()
    (lmtp.handler.state / "outages" / "1").unlink(missing_ok=True)
    again = lmtp.deliver(MESSAGE, *reversed(addresses))
    assert [(reply[:3], "stored before" in reply) for reply in again] == [
        ("250", True),
        ("250", True),
        ("250", False),
        ("250", True),
    ]
    stored = [each.partition(" ")[2] for each in shards.deliveries()]
    assert [stored.count(address) for address in addresses] == [1] * COUNT
