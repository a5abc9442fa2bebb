"""The operator's commands, run as a person or a program runs them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import preloaded
from harness.console import Done
from harness.database import Database
from harness.handler import ENVIRONMENT, entrypoint
from harness.submission import submission

from pipehandler import __version__
from pipehandler.mail.parsed import ParsedMessage
from pipehandler.mail.sysexits import EX_CONFIG, EX_NOINPUT, EX_UNAVAILABLE
from pipehandler.postfix.templates import CODE
from pipehandler.store.ids import NoSuchMessage
from pipehandler.store.message_store import MessageStore
from pipehandler.store.messages import attachment

USAGE = 2  # click's status for a usage error

FILE = bytes(range(256))
LETTER = (
    b"Return-Path: <ann@example.org>\nFrom: Ann <ann@example.org>\nTo: a@example.com\nMessage-ID: <1@example.org>\n"
    b"Date: Mon, 7 Sep 2026 10:00:00 +0900\nSubject: 100% off_er\nMIME-Version: 1.0\n"
    b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nDear a\n--b\n"
    b"Content-Type: application/octet-stream\nContent-Disposition: attachment; filename=octets.bin\n"
    b"Content-Transfer-Encoding: quoted-printable\n\n" + b"".join(b"=%02X" % octet for octet in FILE) + b"\n--b--\n"
)
HOSTILE = (
    b"From: =?utf-8?q?=1B[31mred=9b?= <x\x1b[2J@example.org>\nSubject: =?utf-8?q?=1b]0;title=07=C2=9B31m=E2=80=AE?=\n"
    b"X-Field: \x1b[5m\n\nbody \x1b[1mbold\x1b[0m\n"
)


def pipehandler(*arguments: str) -> Done:
    """Run a command."""
    done = preloaded.run(*arguments, environment=ENVIRONMENT, timeout=60)
    return Done(done.returncode, done.stdout, done.stderr.decode())


class Mailbox:
    """A database with some mail; `run` runs a command as a reader of it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conninfo = database.server.conninfo(database.name, user="reader")
        database.execute("SELECT pipehandler.lease_address('b_c@example.com')")
        store = MessageStore(database.conninfo)
        later = "2026-09-08T10:00:00+09:00"
        plain = b"From: Bob <bob@example.net>\nSubject: 100x offxer\n\nplain"
        self.letter = store.ingest(submission(LETTER, "a@example.com", sender="bounces@example.org"))[0]
        store.ingest(submission(plain, "user+tag@example.com", "b_c@example.com", sender="", received_at=later))
        broken = ParsedMessage(error="not parsed within 10 s")
        store.ingest(submission(b"broken", "bxc@example.com", sender="c@example.net", parsed=broken, received_at=later))
        store.close()

    def run(self, *arguments: str) -> Done:
        """Run a command."""
        return pipehandler("--conninfo", self.conninfo, *arguments)

    def list(self, *arguments: str) -> list[dict[str, Any]]:
        """The output of `list --json`."""
        rows = json.loads(self.run("list", "--json", *arguments).text)
        assert isinstance(rows, list)
        return rows


@pytest.fixture
def mailbox(database: Database) -> Mailbox:
    """A database with three messages for four recipients."""
    return Mailbox(database)


def test_filters_ignore_the_case_of_all_letters(mailbox: Mailbox, database: Database) -> None:
    """Whatever the collation of the database is."""
    store = MessageStore(database.conninfo)
    raw = "From: Jörg Äpfel <j@bücher.example>\nSubject: ПИСЬМО an ÖZGÜR\n\nx".encode()
    store.ingest(submission(raw, "d@example.com", sender="j@bücher.example"))
    store.close()
    for option, text in (
        ("--subject", "письмо*özgür"),
        ("--subject", "N öz"),
        ("--sender", "jörg ä"),
        ("--sender", "JÖRG*"),
        ("--sender", "j@BÜCHER.example"),
    ):
        assert len(mailbox.list(option, text)) == 1, text
    assert mailbox.list("--subject", "письмо*özgü") == mailbox.list("--subject", "n.ö") == []


def test_list_is_newest_first(mailbox: Mailbox) -> None:
    """A table for people: the newest delivery on top, with the columns needed to choose one."""
    head, *lines = mailbox.run("list").text.splitlines()
    assert head.split() == ["ID", "RECEIVED", "RECIPIENT", "FROM", "SUBJECT", "SIZE", "FILES", "STATE", "PREVIEW"]
    recipients = [line.split()[3].removesuffix("example.com") for line in lines]
    assert recipients == ["bxc@", "user+tag@", "b_c@", "a@"]
    assert re.search(
        r"2026-09-07 01:00:00\+00:00  a@example\.com +Ann +100% off_er +[\d.]+ k?B +1  parsed  Dear a$", lines[-1]
    )
    assert lines[0].endswith("failed")


@pytest.mark.parametrize(
    ("arguments", "recipients"),
    [
        ([], ["a@", "b_c@", "bxc@", "user+tag@"]),
        (["--recipient", "a@example.com"], ["a@"]),
        (["--recipient", "a@EXAMPLE.com"], ["a@"]),
        (["--recipient", "*@example.com"], ["a@", "b_c@", "bxc@", "user+tag@"]),
        (["--recipient", "user+*"], ["user+tag@"]),
        (["--recipient", "b_c@*"], ["b_c@"]),
        (["--recipient", "%"], []),
        (["--recipient", "A@"], ["a@"]),
        (["--recipient", "@EXAMPLE"], ["a@", "b_c@", "bxc@", "user+tag@"]),
        (["--recipient", "tag@example.com"], []),
        (["--recipient", "nobody"], []),
        (["--sender", "*NN"], ["a@"]),
        (["--sender", "NN*"], []),
        (["--subject", "*off_er"], ["a@"]),
        (["--subject", "100%*OFF*"], ["a@"]),
        (["--subject", "off*"], []),
        (["--lease", "1"], ["b_c@"]),
        (["--lease", "2"], []),
        (["--sender", "ANN"], ["a@"]),
        (["--sender", "bounces@"], ["a@"]),
        (["--sender", "example.net"], ["b_c@", "bxc@", "user+tag@"]),
        (["--sender", "\\"], []),
        (["--subject", "0% OFF"], ["a@"]),
        (["--subject", "off_er"], ["a@"]),
        (["--subject", "100"], ["a@", "b_c@", "user+tag@"]),
        (["--state", "failed"], ["bxc@"]),
        (["--state", "parsed", "--subject", "x"], ["b_c@", "user+tag@"]),
        (["--since", "2026-09-08 01:00:00"], ["b_c@", "bxc@", "user+tag@"]),
        (["--since", "2026-09-08 01:00:01"], []),
        (["--until", "2026-09-08 01:00:00"], ["a@"]),
        (["--since", "2026-09-07", "--until", "2026-09-08"], ["a@"]),
        (["--after", "2026-09-07", "--before", "2026-09-08"], ["a@"]),
        (["--stored-since", "1h", "--ingress", "pipe"], ["a@", "b_c@", "bxc@", "user+tag@"]),
        (["--stored-since", "now"], []),
        (["--ingress", "import"], []),
        (["--limit", "1"], ["bxc@"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_filters(mailbox: Mailbox, arguments: list[str], recipients: list[str]) -> None:
    """Each filter narrows the list; * matches anything, % and _ only themselves; --since is inclusive, --until is not.
    A whole address matches exactly, any other text without * matches a part."""
    found = [row["recipient"].removesuffix("example.com") for row in mailbox.list(*arguments)]
    assert sorted(found) == recipients


def test_nothing_found(mailbox: Mailbox) -> None:
    """An empty list is a message for people, and an empty array for programs."""
    assert mailbox.run("list", "--subject", "none").text == "nothing found\n"
    assert mailbox.list("--subject", "none") == []


def test_show(mailbox: Mailbox) -> None:
    """A message for people: where it is from, to whom it was delivered, its files and its text."""
    text = mailbox.run("show", str(mailbox.letter.delivery)).text
    for wanted in (
        f"Message:    {mailbox.letter.message}\n",
        "Subject:    100% off_er\n",
        "From:       Ann <ann@example.org>\n",
        "Date:       2026-09-07 10:00:00+09:00\n",
        "from bounces@example.org to a@example.com",
        "octets.bin  application/octet-stream  256 B",
        "\n| Dear a",
    ):
        assert wanted in text
    assert "\n| MIME-Version: 1.0\n" in mailbox.run("show", mailbox.letter.message, "--header").text


def test_json_is_complete(mailbox: Mailbox) -> None:
    """The JSON of a message has every column of its tables, except the bytes and derived or internal columns."""
    shown = json.loads(mailbox.run("show", "--json", mailbox.letter.message).text)
    left_out = {"from_name", "from_address", "fingerprint", "fingerprint_version", "prepended", "xid", "content"}
    rows = {"message": shown, "delivery": shown["deliveries"][0], "attachment": shown["attachments"][0]}
    for table, row in rows.items():
        columns = mailbox.database.rows(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0", f"pipehandler.{table}"
        )
        own = {"deliveries", "attachments"} if row is shown else set()
        assert {column.attname for column in columns} - left_out - set(row) <= {"day", "message"}
        assert set(row) - own <= {column.attname for column in columns}
    assert (shown["subject"], shown["size"]) == ("100% off_er", len(LETTER.partition(b"\n")[2]))
    assert shown["deliveries"][0]["received_at"] == "2026-09-07T01:00:00+00:00"


def test_raw(mailbox: Mailbox) -> None:
    """The bytes of a delivery are exactly those that were read; the bytes of a message lack the fields prepended for
    one recipient."""
    assert mailbox.run("raw", str(mailbox.letter.delivery)) == (0, LETTER, "")
    assert mailbox.run("raw", mailbox.letter.message) == (0, LETTER.partition(b"\n")[2], "")


def test_attachment(mailbox: Mailbox) -> None:
    """The content of an attachment is returned byte for byte."""
    assert mailbox.run("attachment", mailbox.letter.message, "1") == (0, FILE, "")


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (["show", "999"], "nothing with the id 999 is stored; `pipehandler list` shows what is"),
        (["raw", "00000000-0000-0000-0000-000000000000"], "nothing with the id 00000000-"),
        (["raw", "x"], "'x' is not an id: pass a delivery's number, or a message's UUID or at least 8 digits of it"),
        (["show", "9" * 30], f"nothing with the id {'9' * 30} is stored"),
        (["show", "9" * 33], f"'{'9' * 33}' is not an id"),
        (["show", "٣"], "'٣' is not an id"),
        (["attachment", "1", "2"], "1 has no attachment 2; it has 1, see `pipehandler show 1`"),
        (["attachment", "999", "1"], "nothing with the id 999"),
    ],
)
def test_unknown_id(mailbox: Mailbox, arguments: list[str], reported: str) -> None:
    """An unknown id ends with EX_NOINPUT and a line that explains what to do; stdout stays empty."""
    done = mailbox.run(*arguments)
    assert (done.status, done.output) == (EX_NOINPUT, b"")
    assert done.errors.startswith(f"Error: {reported}")
    assert done.errors.count("\n") == 1


def test_bytes_that_are_not_stored(mailbox: Mailbox) -> None:
    """Content that retention or the configuration left out is shown as missing, not as empty."""
    mailbox.database.execute("UPDATE pipehandler.attachment SET content = NULL")
    mailbox.database.execute("DELETE FROM pipehandler.raw_message")
    assert "the raw bytes of 1 are not stored any more" in mailbox.run("raw", "1").errors
    store = MessageStore(mailbox.conninfo)
    with pytest.raises(NoSuchMessage, match="content of attachment 1 is not stored"):
        attachment(store, "1", 1)
    store.close()


@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "1"], ["show", "--header", "1"], ["list", "--json"], ["show", "--json", "1"]]
)
def test_escape_sequences_stop_here(database: Database, arguments: list[str]) -> None:
    """The terminal interprets nothing that a sender wrote: no control character and no change of direction is
    printed."""
    store = MessageStore(database.conninfo)
    store.ingest(submission(HOSTILE))
    store.close()
    text = pipehandler("--conninfo", database.admin, *arguments).text
    assert "title" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    if "--json" in arguments:
        given = json.loads(text)
        row = given[0] if isinstance(given, list) else given
        assert row["subject"] == "]0;title31m\u202e"


# Configuration and database.


def test_migrate(database: Database) -> None:
    """`migrate` reports what it did, or that there is nothing to do; --dry-run prints a script, or a comment."""
    database.execute("DROP SCHEMA pipehandler CASCADE")
    options = ["--conninfo", database.admin, "migrate"]
    script = pipehandler(*options, "--dry-run").text
    assert "\nBEGIN;\n" in script
    assert script.endswith("COMMIT;\n")
    assert "applied 0001_schema.sql\n" in pipehandler(*options).text
    assert pipehandler(*options).text == "nothing to do: the schema is up to date\n"
    assert pipehandler(*options, "--dry-run").text == "-- nothing to do\n"


@pytest.fixture
def config(folder: Path, database: Database) -> Iterator[Path]:
    """A configuration file for the database."""
    path = folder / "pipehandler.toml"
    path.write_text(f"database.conninfo = '{database.conninfo}'\ndatabase.admin_conninfo = '{database.admin}'\n")
    return path  # type: ignore[return-value]


def test_configured_database(config: Path) -> None:
    """Commands connect as configured, with admin_conninfo if it is set."""
    assert pipehandler("--config", str(config), "list").text == "nothing found\n"


@pytest.mark.parametrize(
    ("text", "reported"),
    [("limits.deadline = 1", "limits.deadline = 1; allowed: "), (None, "No such file or directory")],
)
def test_wrong_configuration(folder: Path, text: str | None, reported: str) -> None:
    """An invalid or missing configuration is EX_CONFIG, and the message names the key or the file."""
    path = folder / "pipehandler.toml"
    if text is not None:
        path.write_text(text)
    done = pipehandler("--config", str(path), "list")
    assert (done.status, done.output) == (EX_CONFIG, b"")
    assert str(path) in done.errors
    assert reported in done.errors


@pytest.mark.parametrize("command", [["list"], ["show", "1"], ["raw", "1"], ["attachment", "1", "1"], ["migrate"]])
def test_database_is_down(command: list[str]) -> None:
    """An unreachable database is EX_UNAVAILABLE, with the reason in one line."""
    done = pipehandler("--conninfo", "host=127.0.0.1 port=1", *command)
    assert (done.status, done.output) == (EX_UNAVAILABLE, b"")
    assert re.fullmatch(r"Error: database: .*Connection refused.*\n", done.errors)


def test_changed_migration(database: Database) -> None:
    """A schema that was not created by these files is EX_CONFIG."""
    database.execute("UPDATE pipehandler.migration SET checksum = 'x'")
    done = pipehandler("--conninfo", database.admin, "migrate")
    assert (done.status, done.output) == (EX_CONFIG, b"")


# Postfix and the rest.


@pytest.mark.unmeasured
def test_postfix_lines() -> None:
    """`postfix` prints the lines for master.cf and main.cf with the paths of this installation and the given names."""
    options = ["--user", "mailuser", "--domain", "mail.example.net", "--maxproc", "7"]
    text = pipehandler("--config", "/srv/p.toml", "postfix", "master.cf", *options).text
    argv = " ".join(f"{{{word}}}" if word == CODE else word for word in entrypoint())
    assert f"argv={argv}" in re.sub(r"\s+", " ", re.sub(r"(?m)^#.*\n", "", text))
    assert "user=mailuser" in text
    assert "--config=/srv/p.toml" in text
    everything = pipehandler("postfix", *options).text
    assert "mail.example.net" in everything
    assert [line for line in everything.splitlines() if line.startswith("##### ")] == [
        *("##### master.cf", "##### main.cf", "##### receive-only.main.cf", "##### receive-only.master.cf"),
        *("##### lmtp.master.cf", "##### lmtp.main.cf", "##### pipehandler_status_filter"),
        "##### pgsql-recipients.cf",
        *("##### pipehandler.sysusers", "##### pipehandler.tmpfiles"),
        *("##### pipehandler.socket", "##### pipehandler-lmtp.socket"),
        *("##### pipehandler.service", "##### pipehandler-watch.service"),
        *("##### pipehandler-metrics.service", "##### pipehandler-expire.service", "##### pipehandler-expire.timer"),
        *("##### pipehandler-web.service", "##### pipehandler.nginx", "##### pipehandler.logrotate"),
        *("##### pipehandler.rules.yml", "##### pipehandler.dashboard.json"),
    ]


def test_deliver_behind_an_option() -> None:
    """`deliver` goes through the fence wherever it is on the command line: a missing configuration defers."""
    done = pipehandler("--config", "/none", "deliver", "--sender=", "--", "a@example.com")
    assert (done.status, done.output) == (75, b"4.3.5 mail system incorrectly configured\n")


@pytest.mark.parametrize(
    "arguments", [["none"], ["list", "--limit", "0"], ["list", "--since", "x"], ["attachment", "1", "0"]]
)
def test_usage(arguments: list[str]) -> None:
    """A usage error names the mistake."""
    done = pipehandler(*arguments)
    assert (done.status, done.output) == (USAGE, b"")
    assert "Usage: pipehandler" in done.errors


def test_version() -> None:
    """`--version` prints the version."""
    assert __version__ in pipehandler("--version").text


def test_help_names_every_command() -> None:
    """`--help` shows each command with its purpose."""
    text = pipehandler("--help").text
    for command in ("attachment", "deliver", "list", "migrate", "postfix", "raw", "show"):
        assert re.search(rf"^  {command} +\w", text, re.MULTILINE)
