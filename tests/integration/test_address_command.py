"""`pipehandler address`: addresses are issued, listed, extended, ended and removed by a person or a program."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from harness.console import Console, Done
from harness.database import Database
from harness.submission import submission

from pipehandler.cli import cli
from pipehandler.mail.sysexits import EX_CANTCREAT, EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE
from pipehandler.store.message_store import MessageStore

USAGE = 2  # click's status for a usage error


class Commands(Console):
    """The commands in this process, which saves the start of an interpreter for each."""

    def run(self, *arguments: object, stdin: bytes = b"") -> Done:
        """Run a command."""
        done = CliRunner().invoke(cli, self.command(*arguments)[1:], input=stdin)
        assert isinstance(done.exception, SystemExit | None), done.exception
        return Done(done.exit_code, done.stdout_bytes, done.stderr)


@pytest.fixture
def console(folder: Path, database: Database) -> Console:
    """The commands, as upkeep."""
    return Commands(folder, database)


def left(lease: dict[str, Any]) -> timedelta:
    """The remaining time of a lease."""
    return datetime.fromisoformat(lease["expires_at"]) - datetime.now(UTC)


def test_new(console: Console) -> None:
    """`new` prints only a random address of the given or configured domain, for scripts; or the lease, for programs."""
    assert re.fullmatch(r"[a-z.]{19}@example\.com\n", console.run("address", "new", "--domain", "Example.com").text)
    unnamed = console.run("address", "new")
    assert unnamed.status == USAGE
    assert "no domain: give --domain, or set recipients.domain" in unnamed.errors

    console.configure(more="recipients.domain = 'bücher.example'")
    lease = json.loads(console.run("address", "new", "--ttl", "10m", "--label", "shop 7", "--json").text)
    assert (lease["address"].partition("@")[2], lease["label"]) == ("bücher.example", "shop 7")
    assert timedelta(minutes=9) < left(lease) <= timedelta(minutes=10)
    never = json.loads(console.run("address", "new", "--domain", "example.com", "--ttl", "forever", "--json").text)
    assert never["expires_at"] is None


def test_the_life_of_a_lease(console: Console, database: Database) -> None:
    """An address is added, gets mail, is listed, extended, ended, reactivated, issued again, and removed with its mail;
    selected by its address in any spelling, or by the number of the lease."""
    assert (
        console.run("address", "add", "User@Example.com", "--ttl", "1h", "--label", "mine").text == "user@example.com\n"
    )
    store = MessageStore(database.conninfo)
    store.ingest(submission(b"Subject: a\n\n1", "user@example.com"))
    store.ingest(submission(b"Subject: a\n\n2", "user+x@example.com"))
    (listed,) = json.loads(console.run("address", "list", "--json").text)
    assert (listed["lease"], listed["address"], listed["label"], listed["deliveries"]) == (
        1,
        "user@example.com",
        "mine",
        2,
    )

    assert console.run("address", "extend", "USER@example.COM", "--ttl", "1d").text.startswith(
        "user@example.com: lease 1 expires 2"
    )
    (listed,) = json.loads(console.run("address", "list", "--json").text)
    assert left(listed) > timedelta(hours=23)
    assert console.run("address", "extend", "1").text == "user@example.com: lease 1 expires never\n"
    assert console.run("address", "expire", "user@example.com").text.startswith("user@example.com: lease 1 expires 2")
    assert console.run("address", "list").text == "nothing found\n"
    back = json.loads(console.run("address", "extend", "user@example.com", "--ttl", "2h", "--json").text)
    assert back["lease"] == 1

    ended = json.loads(console.run("address", "expire", "1", "--json").text)
    assert left(ended) <= timedelta()
    assert json.loads(console.run("address", "add", "user@example.com", "--json").text)["lease"] == 2
    assert json.loads(console.run("address", "list", "--expired", "--json").text)[0]["lease"] == 1
    store.ingest(submission(b"Subject: a\n\n1", "user@example.com"))
    store.close()
    refused = console.run("address", "remove", "user@example.com")
    assert refused.status == 1
    assert "Remove user@example.com: lease 2 with 1 delivery permanently? [y/N]:" in refused.errors
    assert refused.errors.endswith("Error: nothing was removed; --yes removes without asking\n")
    would = json.loads(console.run("address", "remove", "--dry-run", "--json", "user@example.com").text)
    assert (would["lease"], would["deliveries"], would["dry_run"]) == (2, 1, True)
    assert (
        console.run("address", "remove", "--yes", "user@example.com").text
        == "user@example.com: lease 2 removed with 1 delivery\n"
    )
    assert (
        console.run("address", "remove", "--yes", "1").text == "user@example.com: lease 1 removed with 2 deliveries\n"
    )
    for table in ("address", "delivery", "message"):
        assert database.value(f"SELECT count(*) FROM pipehandler.{table}") == 0


def test_list(console: Console, database: Database) -> None:
    """A table for people, the newest first; filtered by label and by domain in every spelling, with at most the
    requested rows."""
    database.execute(
        "SELECT pipehandler.lease_address('u' || n || '@example.com', '1 h', 'even' || n % 2) FROM generate_series(1, 4) AS n"
    )
    database.execute("SELECT pipehandler.lease_address('@bücher.example')")
    head, first, second = console.run("address", "list", "--limit", "2").text.splitlines()
    assert head.split() == ["LEASE", "ADDRESS", "LABEL", "CREATED", "EXPIRES", "DELIVERIES"]
    assert re.fullmatch(r"    5  @bücher\.example +20\S+ \S+  never +0", first)
    assert re.fullmatch(r"    4  u4@example\.com +even0  20\S+ \S+  20\S+ \S+ +0", second)

    def found(*arguments: str) -> list[int]:
        return [row["lease"] for row in json.loads(console.run("address", "list", "--json", *arguments).text)]

    assert found("--label", "even1") == found("--label", "*N1") == [3, 1]
    assert found("--label", "EVEN") == [4, 3, 2, 1]
    assert found("--label", "e*n") == []
    assert found("--domain", "XN--BCHER-KVA.example") == [5]
    assert found("--domain", "Example.com", "--limit", "3") == [4, 3, 2]
    assert found("--expired") == []


WRONG = {
    "no address": (("add", "user"), EX_DATAERR, "invalid address 'user': expected LOCAL@DOMAIN"),
    "no UTF-8": (("add", "\udce9@example.com"), EX_DATAERR, "is not an address"),
    "no domain": (("new", "--domain", "u@example.com"), EX_DATAERR, "invalid domain 'u@example.com'"),
    "taken": (
        ("add", "A@example.com"),
        EX_CANTCREAT,
        "a@example.com already has a current lease; extend it, or expire it first",
    ),
    "no such address": (("expire", "nobody@example.com"), EX_NOINPUT, "there is no lease nobody@example.com"),
    "no such lease": (("remove", "77"), EX_NOINPUT, "there is no lease 77; `pipehandler address list` shows"),
    "no lease of this size": (("extend", "9" * 30), EX_NOINPUT, "there is no lease 999"),
    "given out again": (("extend", "2"), EX_NOINPUT, "its address was issued again"),
    "no duration": (("add", "c@example.com", "--ttl", "10"), USAGE, "invalid duration '10'"),
}


@pytest.mark.parametrize("how", WRONG)
def test_errors(console: Console, database: Database, how: str) -> None:
    """An error is reported in one line, with its own status."""
    for address, ttl in (("a@example.com", None), ("b@example.com", "1 us"), ("b@example.com", None)):
        database.execute("SELECT pipehandler.lease_address(%s, %s)", address, ttl)
    arguments, status, text = WRONG[how]
    done = console.run("address", *arguments)
    assert (done.status, done.output) == (status, b"")
    assert text in done.errors


def test_as_another_role(console: Console) -> None:
    """The role of an application that issues addresses may do all that changes a lease, by its address or its number; for a
    role that may only read, the error names the role required."""
    console.configure(role="lessor")
    assert console.run("address", "add", "a@example.com").text == "a@example.com\n"
    for name in ("A@example.com", "1"):
        assert console.run("address", "expire", name).status == 0
        assert console.run("address", "extend", name, "--ttl", "1h").text.startswith(
            "a@example.com: lease 1 expires 20"
        )
    assert console.run("address", "remove", "a@example.com", "-n").text == (
        "a@example.com: lease 1 would be removed with 0 deliveries\n"
    )
    assert console.run("address", "remove", "1", "-y").text == "a@example.com: lease 1 removed with 0 deliveries\n"
    assert console.run("address", "list").status == EX_UNAVAILABLE
    assert console.run("address", "add", "a@example.com").status == 0
    console.configure(role="reader")
    assert "a@example.com" in console.run("address", "list").text
    done = console.run("address", "add", "b@example.com")
    assert done.status == EX_UNAVAILABLE
    assert "pipehandler_address_admin" in done.errors
