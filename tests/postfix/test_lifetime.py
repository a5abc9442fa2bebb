"""The life of an address with a real Postfix, through the commands of an operator: issued, used, listed, ended,
refused, issued again."""

import json
import smtplib
import time
from pathlib import Path

from harness.console import Console
from harness.database import Database
from harness.following import following
from harness.mailhost import MailHost
from harness.service import wait_until

from pipehandler.mail.sysexits import EX_NOINPUT

TTL = 12  # seconds
MESSAGES = [
    b"From: a@example.org\nMessage-ID: <%d@example.org>\nSubject: number %d\n\nhello\n" % (n, n) for n in range(3)
]
TABLES = ("delivery", "message", "raw_message", "attachment")


def rcpt(host: MailHost, address: str) -> tuple[int, bytes]:
    """Postfix's reply to a recipient: the status and the enhanced code."""
    with smtplib.SMTP("127.0.0.1", host.port, timeout=60) as client:
        client.ehlo()
        client.mail("a@example.org")
        status, text = client.rcpt(address)
        return status, text.split()[0]


def views(console: Console, address: str) -> list[object]:
    """The rows of an address in every view."""
    database = console.database
    return [
        json.loads(console.run("list", "--recipient", address, "--json").text),
        database.rows("SELECT * FROM pipehandler.inbox WHERE recipient = %s", address),
        database.rows("SELECT * FROM pipehandler.current_delivery WHERE recipient = %s", address),
        database.rows("SELECT * FROM pipehandler.deliveries_after('', %s)", address),
    ]


def counts(database: Database) -> list[int]:
    """The number of rows in each table of mail."""
    return [database.value(f"SELECT count(*) FROM pipehandler.{table}") for table in TABLES]


def test_life_of_an_address(own: MailHost, folder: Path, database: Database) -> None:
    """Mail to an issued address arrives and is visible at once. When its time is over, it is refused in the SMTP
    dialogue, and its mail is invisible at once, and after `expire` off the disk. Issued again, it is empty."""
    console = Console(folder, database)
    own.ask_the_pool()
    own.start()
    assert rcpt(own, "nobody@example.com") == (550, b"5.1.1")
    address = console.run("address", "new", "--domain", "example.com", "--ttl", f"{TTL}s").text.strip()
    ends = database.value("SELECT expires_at FROM pipehandler.address").timestamp()

    with following(console, "--recipient", address, "--from-start", "--json") as stream:
        for message in MESSAGES:
            own.send(message, "a@example.org", address)
            shown = stream.line().json["id"]
    assert all(views(console, address))

    wait_until(lambda: time.time() > ends)
    assert rcpt(own, address) == (550, b"5.1.1")
    assert not any(views(console, address))
    for command in ("show", "raw"):
        assert console.run(command, shown).status == EX_NOINPUT
    assert counts(database)[:3] == [len(MESSAGES)] * 3

    console.run("expire")
    assert counts(database) == [0, 0, 0, 0]

    console.run("address", "add", address)
    assert rcpt(own, address) == (250, b"2.1.5")
    assert not any(views(console, address))
    own.send(MESSAGES[0], "a@example.org", address)
    own.drain()
    (again,) = json.loads(console.run("list", "--recipient", address, "--json").text)
    assert again["subject"] == "number 0"
