"""No message is deferred forever because of its envelope, or of the kind of its stdin."""

import socket

import pytest
from harness.database import Database
from harness.handler import Handler
from harness.submission import MESSAGE

from pipehandler.mail.outcome import TABLE

OCTETS = (
    "sender",
    "original_recipient",
    "queue_id",
    "client_hostname",
    "client_helo",
    "client_protocol",
    "sasl_username",
)


@pytest.mark.parametrize(
    ("options", "recipient", "names"),
    [
        ({"client_port": 2**31}, "user@example.com", ["client-port"]),
        ({"client_port": "9" * 30, "size": "9" * 19}, "user@example.com", ["size", "client-port"]),
        ({}, "\ufdfa" * 600 + "@example.com", ["recipient"]),
        ({}, "".join(map(chr, range(0x3300, 0x3358))) * 7 + "@example.com", ["recipient"]),
        ({"client_helo": "x" * 100_000, "sasl_username": "\u00e4" * 50_000}, "user@example.com", []),
        ({"sender": "\ufdfa" * 600 + "@example.com", "original_recipient": "y" * 3000}, "user@example.com", []),
        (dict.fromkeys(OCTETS, "\udcff\udc80"), "\udcff@example.com", []),
    ],
    ids=["port", "digits", "grows", "grows too", "long names", "long addresses", "no UTF-8"],
)
def test_odd_values(
    handler: Handler, database: Database, options: dict[str, object], recipient: str, names: list[str]
) -> None:
    """A value that cannot be stored is left out, with a defect; the message is stored, and its redelivery is a
    duplicate."""
    ended = handler.deliver(MESSAGE, recipient, **options)
    assert (ended.status, ended.output[:13]) == (0, "2.0.0 stored "), handler.log_lines()[-1]
    assert handler.deliver(MESSAGE, recipient, **options).output.startswith("2.0.0 stored before")
    defects = database.value("SELECT defects FROM pipehandler.message")
    assert [each["where"] for each in defects if each["code"] == "envelope-value"] == names
    assert database.value("SELECT state FROM pipehandler.message") == "parsed"


def test_stdin_is_a_socket(either: Handler, database: Database) -> None:
    """A message on a socket is stored."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(MESSAGE)
        ours.shutdown(socket.SHUT_WR)
        running = either.start(either.command(), stdin=theirs.fileno())
        output, _ = running.communicate(timeout=60)
    assert (running.returncode, output[:13]) == (0, b"2.0.0 stored ")
    assert bytes(database.value("SELECT raw FROM pipehandler.raw_message")) == MESSAGE


def test_stdin_that_cannot_be_read(handler: Handler) -> None:
    """A descriptor that returns an error instead of a message ends with a deferring status of the outcome table."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        running = handler.start(handler.command(), stdin=listening.fileno())
        output, _ = running.communicate(timeout=60)
    lines = {outcome.line(): outcome.status for outcome in TABLE if outcome.code.startswith("4")}
    assert lines[output.decode().strip()] == running.returncode
