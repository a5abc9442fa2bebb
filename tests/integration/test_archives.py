"""Real archives: with their own times, in folders, compressed, and with files that are not messages."""

import gzip
import json
import mailbox
import os
import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard
from harness.console import Console, everything
from harness.database import Database
from harness.submission import submission

from pipehandler.mail.sysexits import EX_DATAERR
from pipehandler.store.message_store import MessageStore

HEAD = b"Return-Path: <ann@example.org>\nDelivered-To: user@example.com\n"
OLD = datetime(2016, 3, 1, 7, 30, tzinfo=UTC)


def letter(number: int, received: bytes = b"") -> bytes:
    """One of many messages."""
    field = b"Received: from a by b;\n\t" + received + b"\n" if received else b""
    return (
        HEAD + field + b"From: ann@example.org\nMessage-ID: <%d@example.org>\nSubject: %d\n\nbody\n" % (number, number)
    )


def write(path: Path, content: bytes, time: datetime = OLD) -> Path:
    """A file of a certain age."""
    path.write_bytes(content)
    os.utime(path, (time.timestamp(), time.timestamp()))
    return path


def times(database: Database) -> dict[str, datetime]:
    """When each message was received, by subject."""
    rows = database.rows(
        "SELECT m.subject, d.received_at FROM pipehandler.delivery d"
        " JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message"
    )
    return {row.subject: row.received_at for row in rows}


def objects(output: bytes) -> list[dict[str, Any]]:
    """The lines of --json."""
    return [json.loads(line) for line in output.splitlines()]


def test_times(console: Console, database: Database, folder: Path) -> None:
    """The time of receipt comes from the newest Received field, else the mbox line, else the file; an impossible time
    is skipped; retention still counts from the database's clock."""
    soon = (datetime.now(UTC) + timedelta(days=30)).strftime("%a, %d %b %Y %H:%M:%S +0000").encode()
    newest = b"Mon, 7 Sep 2015 10:00:00 +0900\nReceived: by c; Sun, 6 Sep 2015 10:00:00 +0900"
    cases = {
        "1": (letter(1, newest), "2015-09-07T01:00:00+00:00", "Received"),
        "2": (letter(2), OLD.isoformat(), "file"),
        "3": (letter(3, b"no date"), OLD.isoformat(), "file"),
        "4": (letter(4, soon), OLD.isoformat(), "file"),
        "5": (letter(5, b"Thu, 1 Jan 1950 00:00:00 +0000"), OLD.isoformat(), "file"),
    }
    for name, (content, _, _) in cases.items():
        write(folder / f"{name}.eml", content)
    box = b"".join(
        b"From ann@example.org %s\n%s\n" % line
        for line in (
            (b"Mon Sep  8 10:00:00 2014", letter(6)),
            (b"Mon Sep  8 10:00:00 2014", letter(7, b"Mon, 8 Sep 2014 20:00:01 +0900")),
            (b"Mon Sep  8 10:00:00 +0900 2014", letter(8)),
            (b"Mon, 08 Sep 2014 10:00:00 -0500", letter(9)),
            (b"Thu Jan  1 00:00:00 1901", letter(10)),
        )
    )
    cases |= {
        "6": (b"", "2014-09-08T10:00:00+00:00", "mbox line"),
        "7": (b"", "2014-09-08T11:00:01+00:00", "Received"),
        "8": (b"", "2014-09-08T01:00:00+00:00", "mbox line"),
        "9": (b"", "2014-09-08T15:00:00+00:00", "mbox line"),
        "10": (b"", OLD.isoformat(), "file"),
    }
    write(folder / "box", box)
    paths = [*(folder / f"{number}.eml" for number in range(1, 6)), folder / "box"]
    planned = objects(console.run("import", "--json", "--dry-run", *paths).output)
    assert everything(database)["delivery"] == []
    *lines, summary = objects(console.run("import", "--json", *paths).output)
    assert summary == {"summary": {"delivered": 10}, "dry_run": False}
    for rows in (planned[:-1], lines):
        assert [(datetime.fromisoformat(row["received_at"]), row["received_by"]) for row in rows] == [
            (datetime.fromisoformat(time), source) for _, time, source in cases.values()
        ]
    assert times(database) == {name: datetime.fromisoformat(time) for name, (_, time, _) in cases.items()}
    assert database.value("SELECT min(stored_at) > now() - interval '1 hour' FROM pipehandler.delivery")
    said = console.run("import", "--recipient", "b@example.com", folder / "1.eml", folder / "box").text
    assert re.search(r"1\.eml: delivered \S+, received 2015-09-0\S+ \S+ by its Received field\n", said)
    assert re.search(r"box#1: delivered \S+, received 2014-09-0\S+ \S+ by its mbox line\n", said)
    now = console.run("import", "-", stdin=letter(11)).text
    assert re.search(r"-: delivered \S+, received \S+ \S+ now\n", now)


def test_maildir_folders(console: Console, database: Database, folder: Path) -> None:
    """The folders of a Maildir belong to it, however deep, in Maildir++ form and as nested folders."""
    box = mailbox.Maildir(folder / "Maildir")
    box.add(letter(1))
    for number, name in enumerate(("Work", "Work.2016", "Sent"), 2):
        box.add_folder(name).add(letter(number))
    deep = folder / "Maildir" / "Deep"
    mailbox.Maildir(deep).add(letter(6))
    mailbox.Maildir(deep / "Deeper").add(letter(7))
    (folder / "Maildir" / ".Backup" / "2016" / "cur").mkdir(parents=True)
    write(folder / "Maildir" / ".Backup" / "2016" / "cur" / "one", letter(9))
    (folder / "other").mkdir()
    mailbox.Maildir(folder / "other" / "Maildir").add(letter(8))
    (folder / "Maildir" / ".link").symlink_to(folder / "other" / "Maildir")
    (folder / "Maildir" / "dovecot-uidlist").write_bytes(b"3 V1 N1\n")
    assert console.run("import", folder / "Maildir").text.endswith("\n7 delivered\n")
    assert sorted(times(database)) == ["1", "2", "3", "4", "6", "7", "9"]


def gzipped(raw: bytes) -> bytes:
    """In two gzip members, like a log that was appended to."""
    half = len(raw) // 2
    return gzip.compress(raw[:half]) + gzip.compress(raw[half:])


def zstd(raw: bytes) -> bytes:
    """In two frames."""
    half = len(raw) // 2
    return zstandard.compress(raw[:half]) + zstandard.compress(raw[half:])


@pytest.mark.parametrize("compress", [gzipped, zstd])
def test_compressed(console: Console, database: Database, folder: Path, compress: Any) -> None:
    """A compressed file is recognised by its content, so a Maildir may contain some; a damaged one is refused."""
    box = b"".join(b"From ann@example.org Mon Sep  8 10:00:00 2014\n%s\n" % letter(number) for number in (1, 2))
    write(folder / "archive.mbox.x", compress(box))
    write(folder / "one.eml.gz", compress(letter(3)))
    maildir = mailbox.Maildir(folder / "Maildir")
    maildir.add(b"")
    (name,) = (folder / "Maildir" / "new").iterdir()
    name.write_bytes(compress(letter(4)))
    (folder / "mail").mkdir()
    write(folder / "mail" / "five.eml.zst", compress(letter(5)))
    paths = [folder / each for each in ("archive.mbox.x", "one.eml.gz", "Maildir", "mail")]
    assert console.run("import", *paths).text.endswith("\n5 delivered\n")
    assert times(database)["3"] == OLD
    damaged = compress(letter(6) * 100)
    for content in (damaged[:-9], damaged[:8] + b"\xff" * 9 + damaged[17:]):
        (folder / "damaged").write_bytes(content)
        done = console.run("import", folder / "damaged")
        assert done.status == EX_DATAERR
        assert re.search(rb"damaged: refused: it cannot be decompressed: .*\n1 refused\n", done.output), done
    (folder / "large").write_bytes(compress(letter(7) + b"x" * 60_000_000))
    done = console.run("import", folder / "large")
    assert b"refused: 60000" in done.output
    assert b"octets, more than limits.message_size" in done.output
    assert not list(Path("/tmp").glob("pipehandler-*.eml"))


REFUSED = "refused: it has no header field of a message; if it is one, put Return-Path, Delivered-To and an empty line above it"
NO_MESSAGES = {
    "passwd": b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n",
    "text": b"Dear all,\n\nthis is a letter.\n",
    "empty header": b"\nbody\n",
    "toml": b"a = 1\n[section]\nkey: value\n",
    "binary": bytes(range(256)) * 100,
    "bzip2": b"BZh91AY&SY" + bytes(100),
    "html": b"<html>\n<body>From: x</body>\n",
}


@pytest.mark.parametrize("name", NO_MESSAGES)
def test_no_message(console: Console, database: Database, folder: Path, name: str) -> None:
    """A file without any message field is refused with its name and a hint, which works."""
    (folder / "it").write_bytes(NO_MESSAGES[name])
    write(folder / "letter.eml", letter(1))
    done = console.run("import", "--recipient", "user@example.com", folder / "it", folder / "letter.eml")
    assert done.status == EX_DATAERR
    assert done.output.decode().startswith(f"{folder}/it: {REFUSED}\n")
    assert done.output.endswith(b"\n1 refused, 1 delivered\n")
    (folder / "it").write_bytes(HEAD + b"\n" + NO_MESSAGES[name])
    assert "1 delivered" in console.run("import", folder / "it").text


def test_before_the_lease(console: Console, database: Database, folder: Path) -> None:
    """A message that was stored before its address had a lease is a duplicate when it is imported again; live mail is stored
    for the lease, and is a duplicate from then on."""
    path = write(folder / "one.eml", letter(1))
    assert "1 delivered" in console.run("import", path).text
    database.execute("SELECT pipehandler.lease_address('user@example.com')")
    assert console.run("import", "--dry-run", path).text.endswith("one.eml: duplicate\n1 duplicate\n")
    assert console.run("import", path).text.endswith("\n1 duplicate\n")
    content = letter(1).removeprefix(HEAD)
    with closing(MessageStore(database.conninfo)) as store:
        (live,) = store.ingest(submission(content, "user@example.com"))
        assert not live.duplicate
    assert console.run("import", path).text.endswith("\n1 duplicate\n")
    write(path, letter(2))
    assert "1 delivered" in console.run("import", path).text
    assert [row.lease for row in database.rows("SELECT lease FROM pipehandler.delivery ORDER BY id")] == [None, 1, 1]


def test_dry_run(console: Console, database: Database, folder: Path) -> None:
    """A dry run reports what would be stored, what is already stored and what would be refused, and changes nothing;
    also for a role that may only store, which cannot see what is stored."""
    for number in (1, 2):
        write(folder / f"{number}.eml", letter(number))
    console.run("import", folder / "1.eml")
    before = everything(database)
    (folder / "3.eml").write_bytes(b"x\n")
    done = console.run("import", "--dry-run", folder)
    assert done.status == EX_DATAERR
    assert [
        re.sub(", received.*", "", line) for line in done.output.decode().replace(f"{folder}/", "").splitlines()
    ] == [
        "1.eml: duplicate",
        "2.eml: would be stored",
        f"3.eml: {REFUSED}",
        "1 duplicate, 1 would be stored, 1 refused",
    ]
    console.configure("pipehandler")
    assert "2 would be stored, or a duplicate" in console.run("import", "--dry-run", folder).output.decode()
    assert everything(database) == before


def test_quiet(console: Console, folder: Path) -> None:
    """With --quiet only problems and the summary are printed."""
    write(folder / "1.eml", letter(1))
    (folder / "2.eml").write_bytes(b"x\n")
    done = console.run("import", "--quiet", folder)
    assert (done.status, len(done.output.splitlines())) == (EX_DATAERR, 2)
    assert done.output.endswith(b"\n1 delivered, 1 refused\n")
    *lines, summary = objects(console.run("import", "--quiet", "--json", folder).output)
    assert [(line["name"], line["outcome"]) for line in lines] == [(f"{folder}/2.eml", "refused")]
    assert summary["summary"] == {"duplicate": 1, "refused": 1}


def test_progress(console: Console, folder: Path) -> None:
    """On a terminal there is a progress bar that also moves within one file; in a pipe there is none."""
    box = b"".join(b"From ann@example.org Mon Sep  8 10:00:00 2014\n%s\n" % letter(number) for number in range(20))
    write(folder / "box", box)
    assert console.run("import", "--quiet", folder / "box").errors == ""
    shown = console.on_a_terminal("import", "--quiet", folder / "box")
    assert b"100%" in shown
    assert len(set(re.findall(rb"(\d+)%", shown))) > 5
