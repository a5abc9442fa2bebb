"""The quarantine: messages that could not be parsed are shown, exported as files, and dropped; nothing else is
touched."""

import json
import re
import threading
from pathlib import Path

import psycopg
import pytest
from harness.console import Console, everything
from harness.database import Database
from harness.service import wait_until
from harness.submission import submission

from pipehandler.mail.parsed import Defect, ParsedMessage
from pipehandler.mail.sysexits import EX_CANTCREAT, EX_NOINPUT, EX_UNAVAILABLE
from pipehandler.store import quarantine
from pipehandler.store.ids import NoSuchMessage
from pipehandler.store.ingest import Stored
from pipehandler.store.message_store import MessageStore

BROKEN = b"Received: by mx\nSubject: broken\nMessage-ID: <broken@example.org>\n\nFrom here on\n>From there\nbody\n"
HOSTILE = b"X\x1b[2J: \x9b31m\xe2\x80\xae\nSubject: \x1b]0;title\x07\n\nbody\n"
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
USAGE = 2


def store(
    database: Database, raw: bytes, *recipients: str, error: str | None = "it failed", **changes: object
) -> Stored:
    """Store a message in quarantine, or a parsed one; returns its first delivery."""
    opened = MessageStore(database.conninfo)
    parsed = ParsedMessage(error=error, defects=[Defect("smaller-than-declared")]) if error else None
    try:
        rows = opened.ingest(submission(raw, *recipients, parsed=parsed, **changes))  # type: ignore[arg-type]
        return min(rows, key=lambda row: row.delivery)
    finally:
        opened.close()


def test_list(console: Console, database: Database) -> None:
    """The newest first, with recipients and reason; parsed messages are not listed."""
    assert console.run("quarantine", "list").text == "the quarantine is empty\n"
    assert json.loads(console.run("quarantine", "list", "--json").text) == []
    store(database, b"fine", error=None)
    first = store(database, BROKEN, *(f"{name}@example.com" for name in "abc"))
    later = "2026-09-08T10:00:00+09:00"
    second = store(database, HOSTILE, error="ValueError at \x1b[31m", received_at=later)
    head, *lines = console.run("quarantine", "list").text.splitlines()
    assert head.split() == ["MESSAGE", "RECEIVED", "SIZE", "RECIPIENTS", "REASON"]
    assert [line.split()[0] for line in lines] == [second.message, first.message]
    assert "a@example.com, b@example.com and 1 more" in lines[1]
    assert not UNSAFE.search("".join(lines))
    (newest,) = json.loads(console.run("quarantine", "list", "--json", "--limit", "1").text)
    assert (newest["message"], newest["recipients"], newest["error"]) == (
        *(second.message, ["user@example.com"], "ValueError at \x1b[31m"),
    )


def test_reasons(console: Console, database: Database) -> None:
    """The counts by reason, the most frequent first."""
    for number, error in enumerate(["seldom", "often", "often"]):
        store(database, b"%d" % number, error=error)
    rows = json.loads(console.run("quarantine", "list", "--reasons", "--json").text)
    assert [(row["messages"], row["error"]) for row in rows] == [(2, "often"), (1, "seldom")]
    assert console.run("quarantine", "list", "--reasons").text.splitlines()[1].endswith("often")


def test_show(console: Console, database: Database) -> None:
    """The reason, the deliveries, the defects and the start of the header, none of which a terminal interprets."""
    stored = store(database, HOSTILE, "a@example.com", "\x1b[31m@example.com")
    for name in (stored.message, str(stored.delivery)):
        text = console.run("quarantine", "show", name).text
        assert not UNSAFE.search(text)
        for wanted in (
            "Reason:     it failed\n",
            "to a@example.com",
            "Defect:     smaller-than-declared\n",
            "Subject: ",
        ):
            assert wanted in text
        assert "body" not in text
    shown = json.loads(console.run("quarantine", "show", "--json", stored.message).text)
    assert (shown["error"], len(shown["deliveries"]), shown["head"][1]) == ("it failed", 2, "Subject: \x1b]0;title\x07")


@pytest.mark.parametrize("command", [["show"], ["drop", "--yes"], ["export", "--to", "/nonexistent/x"]])
def test_only_what_is_in_quarantine(console: Console, database: Database, command: list[str]) -> None:
    """A parsed message and an unknown id are refused, and the others are left unchanged."""
    parsed = store(database, b"fine", error=None)
    failed = store(database, BROKEN)
    before = everything(database)
    ids = [failed.message] if command[0] != "show" else []
    done = console.run("quarantine", *command, *ids, parsed.message)
    assert (done.status, done.output) == (EX_NOINPUT, b"")
    assert f"{parsed.message} is not in quarantine: it was parsed" in done.errors
    assert console.run("quarantine", *command, *ids, "999").status == EX_NOINPUT
    assert everything(database) == before


def files(folder: Path) -> dict[str, bytes]:
    """The content of a folder, including hidden files."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_export(console: Console, database: Database, folder: Path) -> None:
    """A file for each delivery: its envelope on top, then the exact bytes; closed to others, and reported as existing
    the second time."""
    stored = store(database, BROKEN, "a@example.com", "b@example.com", sender="")
    other = store(database, HOSTILE, "we ird@example.com", sender="x@example.org")
    to = folder / "new" / "out"
    said = console.run("quarantine", "export", "--all", "--to", to).text
    assert files(to) == {
        f"{stored.delivery}-{stored.message}.eml": b"Return-Path: <>\nDelivered-To: a@example.com\n" + BROKEN,
        f"{stored.delivery + 1}-{stored.message}.eml": b"Return-Path: <>\nDelivered-To: b@example.com\n" + BROKEN,
        f"{other.delivery}-{other.message}.eml": (
            b'Return-Path: <x@example.org>\nDelivered-To: "we ird"@example.com\n' + HOSTILE
        ),
    }
    assert set(said.splitlines()) == {str(path) for path in to.iterdir()}
    assert {path.stat().st_mode & 0o777 for path in to.iterdir()} == {0o600}
    again = console.run("quarantine", "export", stored.message, "--to", to).text
    assert again.count("exists already, with the same content\n") == 2


def test_export_overwrites_nothing(console: Console, database: Database, folder: Path) -> None:
    """An existing file that differs, and a link, are left unchanged."""
    stored = store(database, BROKEN)
    path = folder / f"{stored.delivery}-{stored.message}.eml"
    target = folder / "target"
    for make in (lambda: path.write_bytes(b"edited"), lambda: path.symlink_to(target), path.mkdir):
        make()
        done = console.run("quarantine", "export", stored.message, "--to", folder)
        assert (done.status, done.output) == (EX_CANTCREAT, b"")
        assert f"{path} exists and differs" in done.errors
        assert not target.exists()
        path.rmdir() if path.is_dir() else path.unlink()
    assert not [name for name in folder.iterdir() if name.name.startswith(".")]


def test_export_where_nothing_can_be_written(console: Console, database: Database, folder: Path) -> None:
    """The reason is reported in one line."""
    stored = store(database, BROKEN)
    done = console.run("quarantine", "export", stored.message, "--to", "/proc/none")
    assert (done.status, done.errors) == (EX_CANTCREAT, "Error: /proc/none: No such file or directory\n")
    assert console.run("quarantine", "export", "--to", folder).status == USAGE


def test_export_keeps_what_was_prepended(console: Console, database: Database, folder: Path) -> None:
    """Fields that a delivery already has are not repeated; an mbox line would turn the file into an mbox, and is left
    out."""
    head = b"Return-Path: <a@example.org>\nDelivered-To: user@example.com\n"
    stored = store(database, b"From a@example.org Mon\n" + head + BROKEN)
    console.run("quarantine", "export", stored.message, "--to", folder / "out")
    assert list(files(folder / "out").values()) == [head + BROKEN]


def test_export_without_fields(console: Console, database: Database, folder: Path) -> None:
    """If no field can precede the bytes, they are written unchanged, and that is reported."""
    stored = store(database, b" begins with a blank\n")
    said = console.run("quarantine", "export", stored.message, "--to", folder / "out").text
    assert "import it with --recipient and --sender" in said
    assert list(files(folder / "out").values()) == [b" begins with a blank\n"]


def test_export_where_bytes_are_gone(console: Console, database: Database, folder: Path) -> None:
    """Messages whose bytes retention removed are reported; the others are written."""
    gone, other = store(database, BROKEN), store(database, HOSTILE)
    database.execute("DELETE FROM pipehandler.raw_message WHERE message = %s", gone.message)
    done = console.run("quarantine", "export", "--all", "--to", folder / "out")
    assert (done.status, list(files(folder / "out"))) == (0, [f"{other.delivery}-{other.message}.eml"])
    assert "not stored any more" in done.errors
    assert console.run("quarantine", "export", gone.message, "--to", folder / "out").status == EX_NOINPUT
    assert "(the bytes are no longer stored)" in console.run("quarantine", "show", gone.message).text


def test_drop(console: Console, database: Database) -> None:
    """The message, its bytes and its deliveries are removed after confirmation; the others are left."""
    stored = store(database, BROKEN, "a@example.com", "b@example.com")
    other = store(database, HOSTILE)
    before = everything(database)
    for answer in (b"n\n", b""):
        done = console.run("quarantine", "drop", stored.message, stdin=answer)
        assert done.status == 1
        assert "Delete 1 message permanently?" in done.errors
        assert done.errors.endswith("Error: nothing was removed; --yes removes without asking\n")
        assert everything(database) == before
    assert console.run("quarantine", "drop", "--dry-run", stored.message[:8]).text.endswith(
        f"would drop {stored.message} with 2 deliveries\n"
    )
    assert everything(database) == before
    done = console.run("quarantine", "drop", "--json", stored.delivery, stdin=b"y\n")
    assert json.loads(done.output) == {"message": stored.message, "deliveries": 2, "dry_run": False}
    assert console.run("quarantine", "drop", "--yes", other.message, other.delivery).text == (
        f"dropped {other.message} with 1 delivery\n"
    )
    assert all(not rows for rows in everything(database).values())


def test_drop_while_it_is_delivered_again(database: Database) -> None:
    """A delivery for another recipient that arrives at that moment is dropped as well, or kept with its message."""
    stored = store(database, BROKEN)
    with psycopg.connect(database.admin) as other:
        # What ingest does for a second recipient, not yet committed.
        other.execute("SELECT FROM pipehandler.message FOR KEY SHARE")
        other.execute(
            "INSERT INTO pipehandler.delivery (day, message, recipient, fingerprint, sender, mail_host, ingress, received_at)"
            " SELECT day, message, 'b@example.com', fingerprint, sender, mail_host, ingress, received_at FROM pipehandler.delivery"
        )
        opened = MessageStore(database.server.conninfo(database.name, user="upkeep"))
        dropped: list[int] = []
        thread = threading.Thread(target=lambda: dropped.append(quarantine.drop(opened, stored.message)))
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        wait_until(lambda: database.value(waits))
        other.commit()
        thread.join(30)
    opened.close()
    assert dropped == [2]
    assert all(not rows for rows in everything(database).values())


def test_drop_of_what_was_parsed_meanwhile(database: Database) -> None:
    """The message is kept, and that is reported."""
    stored = store(database, b"fine", error=None)
    opened = MessageStore(database.admin)
    with pytest.raises(NoSuchMessage, match="not in quarantine any more"):
        quarantine.drop(opened, stored.message)
    opened.close()
    assert len(everything(database)["message"]) == 1


def test_roles(console: Console, database: Database, folder: Path) -> None:
    """A reader may list and export; only the maintenance role may drop, and a reader gets an error."""
    stored = store(database, BROKEN)
    console.configure("reader")
    assert stored.message in console.run("quarantine", "list").text
    assert "it failed" in console.run("quarantine", "show", stored.message).text
    console.run("quarantine", "export", "--all", "--to", folder / "out").text  # noqa: B018
    done = console.run("quarantine", "drop", "--yes", stored.message)
    assert (done.status, done.output) == (EX_UNAVAILABLE, b"")
    assert "permission denied" in done.errors
    assert "pipehandler_maintenance" in done.errors
    assert len(everything(database)["message"]) == 1
