"""From an SMTP dialogue to a committed row, through a real Postfix with the lines of postfix/, in both modes."""

import itertools
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest
from harness.database import Database
from harness.mailhost import MailHost
from harness.service import Service, wait_until

_numbers = itertools.count(1)
_RECEIVED = re.compile(rb"Received: [^\n]*\n(?:[ \t][^\n]*\n)*")


@pytest.fixture(scope="module")
def mail(request: pytest.FixtureRequest, mode: str) -> MailHost:
    """The mail host, which delivers by pipe, or by LMTP."""
    host: MailHost = request.getfixturevalue("lmtp_mail") if mode == "lmtp" else request.getfixturevalue("pipe_mail")
    return host


@pytest.fixture(scope="module", params=["cold", "resident", "lmtp"], autouse=True)
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    """How messages are delivered: by the entrypoint, by workers (then all of them), or by LMTP."""
    if request.param != "resident":
        yield request.param
        return
    mail = request.getfixturevalue("pipe_mail")
    with Service(mail.handler) as service:
        before = len(mail.handler.log_lines())
        yield "resident"
        wait_until(lambda: not service.status()["busy"])
        assert not [line for line in mail.handler.log_lines()[before:] if " mode=cold " in line]


@pytest.fixture
def recipient() -> str:
    """A recipient used only by this test."""
    return f"user{next(_numbers)}@example.com"


def message(number: int, body: bytes = b"hello\n", fields: bytes = b"") -> bytes:
    """A whole message, so that Postfix has no field to add."""
    return (
        b"From: sender@example.org\nDate: Mon, 02 Mar 2026 07:30:00 +0900\nSubject: test\n"
        b"Message-ID: <%d@example.org>\n%s\n%s" % (number, fields, body)
    )


def rows(stored: Database, recipient: str) -> list[Any]:
    """All that is stored for a recipient."""
    return stored.rows(
        "SELECT d.*, m.subject, m.state, m.defects, m.html_body, m.text_body, r.raw FROM pipehandler.delivery d"
        "  JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message"
        " JOIN pipehandler.raw_message r ON r.day = m.day AND r.message = m.id"
        " WHERE d.recipient = %s ORDER BY d.id",
        recipient,
    )


@pytest.fixture
def delivered(mail: MailHost, stored: Database, recipient: str) -> Callable[..., Any]:
    """Send one message, and return its row; the bytes were compared, and nothing was deferred."""

    def deliver(
        sent: bytes, to: str = recipient, sender: str = "sender@example.org", **options: tuple[str, ...]
    ) -> Any:
        mail.send(sent, sender, to, **options)
        mail.drain()
        (row,) = rows(stored, to)
        received = _RECEIVED.match(row.raw)
        assert received
        assert row.raw[received.end() :] == sent
        assert row.prepended is None
        assert not [defect for defect in row.defects if defect["code"] == "smaller-than-declared"]
        assert [attempt["status"] for attempt in mail.deliveries(to)] == ["sent"]
        return row

    return deliver


def test_one_message(delivered: Callable[..., Any], mail: MailHost, recipient: str, mode: str) -> None:
    """A message becomes one row with its exact bytes, its envelope, and its id in Postfix's log."""
    row = delivered(message(1))
    (attempt,) = mail.deliveries(recipient)
    assert attempt["dsn"] == "2.0.0"
    assert f"2.0.0 stored {row.message}" in attempt["text"]
    assert row.queue_id == attempt["queue_id"]
    assert (row.sender, row.original_recipient) == ("sender@example.org", None if mode == "lmtp" else recipient)
    assert str(row.client_address) == "127.0.0.1"
    assert row.client_port > 0
    assert row.client_protocol == "ESMTP"
    assert (row.subject, row.state, row.defects) == ("test", "parsed", [])


def test_two_recipients(mail: MailHost, stored: Database) -> None:
    """One message to two recipients is one message and two deliveries."""
    mail.send(message(2), "sender@example.org", "one@example.com", "two@example.com")
    mail.drain()
    (one,), (two,) = rows(stored, "one@example.com"), rows(stored, "two@example.com")
    assert one.message == two.message
    assert one.queue_id == two.queue_id


def test_sent_twice(mail: MailHost, stored: Database, recipient: str) -> None:
    """A message that its sender transmits twice is stored once, and both deliveries are reported to Postfix as sent."""
    for _ in range(2):
        mail.send(message(3), "sender@example.org", recipient)
        mail.drain()
    (row,) = rows(stored, recipient)
    texts = [attempt["text"] for attempt in mail.deliveries(recipient)]
    assert [f"stored {row.message}" in texts[0], f"stored before {row.message}" in texts[1]] == [True, True]


@pytest.mark.parametrize("sender", ["", "-f@example.org", "--@example.org", "we ird@example.org", "a+b@example.org"])
def test_senders(delivered: Callable[..., Any], sender: str) -> None:
    """The null sender stays empty, and no sender is taken for an option."""
    quoted = f'"{sender.partition("@")[0]}"@example.org' if " " in sender else sender
    assert delivered(message(4), sender=quoted).sender == sender


@pytest.mark.parametrize(
    ("given", "stored_as"),
    [
        ("plus+extension@example.com", "plus+extension@example.com"),
        ("-dash@example.com", "-dash@example.com"),
        ("MiXed@EXAMPLE.com", "MiXed@example.com"),
        (f"{'x' * 900}@example.com", f"{'x' * 900}@example.com"),
    ],
    ids=["plus", "dash", "case", "long"],
)
def test_recipients(mail: MailHost, stored: Database, given: str, stored_as: str) -> None:
    """Recipients are stored unchanged, except for the case of the domain."""
    mail.send(message(5), "sender@example.org", given)
    mail.drain()
    (row,) = rows(stored, stored_as)
    assert row.original_recipient == (None if row.ingress == "lmtp" else given)


def test_recipient_too_long_for_an_index(mail: MailHost, stored: Database) -> None:
    """It is stored as its beginning and its digest, and in full as the original recipient."""
    given = f"{'x' * 1900}@example.com"
    mail.send(message(77), "sender@example.org", given)
    mail.drain()
    key = stored.value("SELECT recipient FROM pipehandler.delivery WHERE original_recipient = %s", given)
    assert key.endswith(f"...{sha256(given.encode()).hexdigest()}")


def test_smtputf8(delivered: Callable[..., Any], recipient: str) -> None:
    """Internationalised addresses (RFC 6531) and 8-bit header fields arrive as they were sent."""
    to, sender = f"받는이-{recipient}", "보내는이@example.org"
    sent = message(6, fields="Comments: 한국어 머리글\n".encode())
    row = delivered(sent, to=to, sender=sender, options=("SMTPUTF8", "BODY=8BITMIME"))
    assert (row.recipient, row.sender) == (to, sender)


@pytest.mark.parametrize(
    "body",
    [
        b".\n..\n...\n.x\n",
        b"x" * 100_000 + b"\n",
        b"\xe9" * 5000 + b"\n",
        b"\n\n\n",
        b"",
        b"From here\n>From there\n",
        b"".join(b"%d\n" % number for number in range(20_000)),
        b"no line end at the end",
    ],
    ids=["dots", "long-line", "8bit", "empty-lines", "no-body", "from", "many-lines", "no-last-line-end"],
)
def test_bodies(delivered: Callable[..., Any], body: bytes) -> None:
    """Lines that begin with a dot, very long ones and 8-bit ones are stored byte for byte, and none is marked as
    truncated."""
    # SMTP cannot send a message without a final line end.
    delivered(message(7, body if body.endswith(b"\n") or not body else body + b"\n"))


def test_large(delivered: Callable[..., Any]) -> None:
    """A message of 8 MB with an attachment is stored byte for byte."""
    lines = b"QUFB" * 19 + b"\n"
    fields = b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n"
    delivered(message(8, lines * 100_000, fields))


def test_postconf(mail: MailHost) -> None:
    """postconf knows every parameter of the example files, and reports nothing."""
    for what in ("-n", "-M", "-P"):
        assert "postconf:" not in mail.postconf(what)


def test_transport_and_entrypoint_agree(mail: MailHost) -> None:
    """master.cf passes every option that the entrypoint knows, and no other."""
    from pipehandler.mail.envelope import OPTIONS

    options = re.findall(r"--([a-z-]+)=", mail.postconf("-M", "pipehandler/unix"))
    assert sorted(options) == sorted(OPTIONS)


def test_smtp_source(
    mail: MailHost, stored: Database, pytestconfig: pytest.Config, load: Callable[..., None], mode: str
) -> None:
    """Each of many concurrent messages is one delivery, and every raw message is byte-exact."""
    count = pytestconfig.getoption("--messages")
    sent = message(9, b"".join(b"line %d of a newsletter\n" % number for number in range(500)))
    load(mail, sent, count, f"load-{mode}@example.com")
    mail.drain(count)
    found = stored.rows(
        "SELECT d.recipient, r.raw FROM pipehandler.delivery d JOIN pipehandler.raw_message r USING (message)"
        " WHERE d.recipient LIKE %s AND d.sender = %s",
        f"%load-{mode}@example.com",
        "source@example.org",
    )
    assert len(found) == len({row.recipient for row in found}) == count
    # smtp-source -F adds an empty line at the end.
    assert all(_RECEIVED.sub(b"", row.raw, count=1) == sent + b"\n" for row in found)
