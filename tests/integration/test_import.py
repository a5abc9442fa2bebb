"""Importing: messages from files are stored by the same core as those from pipe(8), with the envelope found in the
file."""

import mailbox
import os
import re
import signal
from functools import partial
from pathlib import Path
from random import Random

import pytest
from harness.console import Console, everything
from harness.database import Database
from harness.poison import POISON, slow
from harness.service import wait_until
from harness.submission import submission

from pipehandler.mail.envelope import Envelope, lower_domain
from pipehandler.mail.identity import identify
from pipehandler.mail.parsed import ParsedMessage
from pipehandler.mail.sysexits import EX_DATAERR, EX_TEMPFAIL, EX_UNAVAILABLE
from pipehandler.store.message_store import MessageStore

LETTER = (
    b"Received: by mx\nFrom: Ann <ann@example.org>\nMessage-ID: <1@example.org>\nSubject: \xff\xfe no UTF-8\n\n"
    b"From the beginning\n>From there\n\xc3\x28 body\n"
)
HEAD = b"Return-Path: <ann@example.org>\nX-Original-To: old@example.com\nDelivered-To: new@Example.COM\n"
GOLDEN = Path(__file__).parents[1] / "golden"
EX_INTERRUPTED = 130
SPECIAL = "abz.@\"\\<>()[],:; \t'=?%+-\x01\x7f\x85\xa0\u00fc\u3000\u202e\u2028\ufdfa\U0001f600"


def raws(database: Database) -> list[bytes]:
    """All stored messages."""
    return sorted(row.raw for row in database.rows("SELECT raw FROM pipehandler.raw_message"))


def letter(number: int) -> bytes:
    """One of many different messages."""
    return LETTER.replace(b"<1@", b"<%d@" % number)


def quoted(raw: bytes) -> bytes:
    """As mboxrd writes it."""
    return re.sub(rb"^(>*From )", rb">\1", raw, flags=re.MULTILINE)


def test_one_message(console: Console, database: Database, folder: Path) -> None:
    """A file is stored byte for byte, with the envelope that Postfix prepended; the second time it is a duplicate."""
    path = folder / "one.eml"
    path.write_bytes(HEAD + LETTER)
    said = console.run("import", path).text
    line = rf"{path}: delivered {identify(LETTER).id}, received \S+ \S+ by the time of its file\n1 delivered\n"
    assert re.fullmatch(line, said)
    (row,) = database.rows("SELECT * FROM pipehandler.delivery")
    assert (row.recipient, row.original_recipient, row.sender, row.ingress, row.prepended) == (
        *("new@example.com", "old@example.com", "ann@example.org", "import", HEAD),
    )
    assert raws(database) == [LETTER]
    assert console.run("import", path, path).text.endswith("\n2 duplicate\n")
    assert len(everything(database)["delivery"]) == 1


def test_envelope_of_the_caller(console: Console, database: Database, folder: Path) -> None:
    """Options take precedence over the file; without either there is no recipient, and the error has a hint."""
    path = folder / "letter"
    path.write_bytes(LETTER)
    done = console.run("import", path)
    assert (done.status, done.output.decode()) == (
        EX_DATAERR,
        f"{path}: refused: it does not begin with Delivered-To or X-Original-To; use --recipient\n1 refused\n",
    )
    to = ["--recipient", "a@EXAMPLE.com", "--recipient", "a@example.com", "--recipient", "b@example.com"]
    assert "1 delivered" in console.run("import", path, *to).text
    path.write_bytes(HEAD + LETTER)
    assert "1 delivered" in console.run("import", path, "--recipient", "c@example.com", "--sender", "x@y").text
    rows = database.rows("SELECT recipient, original_recipient, sender FROM pipehandler.delivery ORDER BY id")
    assert [tuple(row) for row in rows] == [
        *(("a@example.com", None, ""), ("b@example.com", None, "")),
        ("c@example.com", None, "x@y"),
    ]


def test_line_ends(console: Console, database: Database, folder: Path) -> None:
    """CRLF stays CRLF in what is stored, and the same message with LF is a duplicate of it."""
    crlf = LETTER.replace(b"\n", b"\r\n")
    (folder / "crlf.eml").write_bytes(HEAD.replace(b"\n", b"\r\n") + crlf)
    (folder / "lf.eml").write_bytes(HEAD + LETTER)
    assert "1 delivered" in console.run("import", folder / "crlf.eml").text
    assert "1 duplicate" in console.run("import", folder / "lf.eml").text
    assert raws(database) == [crlf]


def test_mbox(console: Console, database: Database, folder: Path) -> None:
    """Each message of an mbox, its quoting undone, whatever octets it holds; the standard library wrote it."""
    path = folder / "archive"
    letters = [letter(number) for number in range(3)]
    box = mailbox.mbox(path)
    for each in letters:
        box.add(b"From x@y Mon Sep  7 10:00:00 2026\n" + HEAD + quoted(each))
    box.close()
    written = path.read_bytes()
    said = console.run("import", path).text
    assert f"{path}#3: delivered" in said
    assert said.endswith("\n3 delivered\n")
    assert raws(database) == sorted(letters)
    assert path.read_bytes() == written


def test_mbox_and_message_with_an_mbox_line(console: Console, database: Database, folder: Path) -> None:
    """A file *.eml is one message, even if it begins like an mbox; any other file is split."""
    raw = b"From x Mon\n" + HEAD + b"Subject: s\n\nbody\n\nFrom here on\nit goes on\n\nFrom y Mon\nTo: y\n\n"
    for name in ("one.EML", "two"):
        (folder / name).write_bytes(raw)
    assert "1 delivered" in console.run("import", folder / "one.EML").text
    assert raws(database) == [raw.partition(HEAD)[2]]
    done = console.run("import", folder / "two")
    assert done.status == EX_DATAERR
    assert b"two#1: delivered" in done.output
    assert b"two#1: line 12 has no address and time stamp, but is above a field: taken as a separator" in done.output
    assert b"two#2: refused: it does not begin with" in done.output


@pytest.mark.parametrize("name", ["from-after-blank-line", "from-in-paragraph"])
def test_mbox_with_from_in_text(console: Console, database: Database, folder: Path, name: str) -> None:
    """A text line that begins with "From " neither splits a message nor is lost."""
    body = {
        "from-after-blank-line": b"Dear all,\n\nFrom next Monday on we open at ten.\n\nAnn\n",
        "from-in-paragraph": b"We move house.\nFrom here it is an hour by train.\nAnn\n",
    }[name]
    separator = b"From - Thu Nov 26 09:00:00 2026\n"
    (folder / "box").write_bytes(separator + b"Message-ID: <1@x>\n\n" + body + b"\n" + separator + letter(2))
    said = console.run("import", "--recipient", "a@example.com", folder / "box").text
    assert said.endswith("\n2 delivered\n")
    text = "SELECT text_body FROM pipehandler.message WHERE message_id = '1@x'"
    assert database.value(text) == body.decode()


@pytest.mark.parametrize("stored", [b">From a\n>>From b\n", b"From a\n>>From b\n", b"From a\n>From b\n"])
def test_mbox_of_mail_that_is_stored(console: Console, database: Database, folder: Path, stored: bytes) -> None:
    """Mail that arrived before is a duplicate, whichever way the mbox was quoted: mboxcl2, mboxo, mboxrd."""
    head = HEAD + b"Message-ID: <1@x>\n\n"
    (folder / "one.eml").write_bytes(head + stored)
    console.run("import", folder / "one.eml")
    before = everything(database)
    (folder / "box").write_bytes(b"From - Thu Nov 26 09:00:00 2026\n" + head + b">From a\n>>From b\n")
    assert console.run("import", folder / "box").text.endswith("\n1 duplicate\n")
    assert everything(database) == before
    assert console.run("import", "--recipient", "other@x", folder / "box").text.endswith("\n1 delivered\n")
    # A role that may only store mail gets the most likely reading.
    console.configure("pipehandler")
    assert console.run("import", folder / "box").text.count("\n1 ") == 1
    assert len(everything(database)["message"]) == (1 if stored == b"From a\n>From b\n" else 2)


def test_mbox_and_database_away(own_database: Database, folder: Path) -> None:
    """Without a database it is unknown whether another reading is stored, so nothing is stored."""
    console = Console(folder, own_database)
    (folder / "box").write_bytes(b"From - Thu Nov 26 09:00:00 2026\n" + HEAD + b"Subject: x\n\n>From a\n")
    own_database.server.stop()
    done = console.run("import", folder / "box")
    own_database.server.start()
    assert done.status == EX_TEMPFAIL
    assert done.errors.startswith(f"Error: {folder}/box#1: message store unavailable: ")


def test_header_that_begins_with_from(console: Console, database: Database, folder: Path) -> None:
    """An old form of the field From is not an mbox line."""
    (folder / "old").write_bytes(b"From : a@example.org\n\nbody\n")
    assert "1 delivered" in console.run("import", folder / "old", "--recipient", "a@x").text
    assert raws(database) == [b"From : a@example.org\n\nbody\n"]


def test_maildir(console: Console, database: Database, folder: Path) -> None:
    """The messages in new and cur, but not those still being written."""
    box = mailbox.Maildir(folder / "Maildir")
    keys = [box.add(HEAD + letter(number)) for number in range(3)]
    moved = box.get_message(keys[0])
    moved.set_subdir("cur")
    box[keys[0]] = moved
    (folder / "Maildir" / "tmp" / "unfinished").write_bytes(HEAD + b"unfin")
    (folder / "Maildir" / "new" / ".hidden").write_bytes(HEAD + b"hidden")
    assert console.run("import", folder / "Maildir").text.endswith("\n3 delivered\n")
    assert database.value("SELECT count(*) FROM pipehandler.message") == 3


def test_folder(console: Console, database: Database, folder: Path) -> None:
    """All *.eml below a folder, in order; links in it are not followed: they may lead to files that the folder's owner
    may not read."""
    inside = folder / "mail" / "b"
    inside.mkdir(parents=True)
    for name, number in (("mail/b/2.eml", 2), ("mail/a.EML", 1), ("mail/c.txt", 3), ("secret", 4)):
        (folder / name).write_bytes(HEAD + letter(number))
    (inside / "link.eml").symlink_to(folder / "secret")
    done = console.run("import", folder / "mail")
    assert done.status == EX_DATAERR
    lines = [line.partition(", received")[0] for line in done.output.decode().splitlines()]
    assert [line.partition(": ")[::2] for line in lines] == [
        (f"{folder}/mail/a.EML", f"delivered {identify(letter(1)).id}"),
        (f"{folder}/mail/b/2.eml", f"delivered {identify(letter(2)).id}"),
        (f"{folder}/mail/b/link.eml", "refused: a symbolic link in a folder; name its target"),
        ("2 delivered, 1 refused", ""),
    ]
    (folder / "link").symlink_to(folder / "secret")
    assert "1 delivered" in console.run("import", folder / "link").text


@pytest.mark.parametrize("raw", [HEAD + LETTER, b"From x Mon\n" + HEAD + LETTER.replace(b"\nFrom t", b"\n>From t")])
def test_stdin(console: Console, database: Database, raw: bytes) -> None:
    """A message or an mbox on stdin."""
    done = console.run("import", "-", stdin=raw)
    assert done.output.decode().endswith("\n1 delivered\n"), done
    assert database.value("SELECT recipient FROM pipehandler.delivery") == "new@example.com"


def test_what_cannot_be_read(console: Console, database: Database, folder: Path) -> None:
    """Each invalid path, and each file that is not a message, is named with the reason; the others are stored."""
    console.configure(more="limits.message_size = 2000")
    os.mkfifo(folder / "fifo.eml")
    (folder / "empty").touch()
    (folder / "nothing").mkdir()
    (folder / "large").write_bytes(HEAD + LETTER + b"x" * 2000)
    (folder / "good").write_bytes(HEAD + LETTER)
    (folder / "box").write_bytes(
        b"From x\n" + HEAD + quoted(letter(2)) + b"x" * 2000 + b"\n\nFrom x\n" + HEAD + quoted(letter(3))
    )
    (folder / "hostile\x1b[31m\n\udcff").write_bytes(HEAD + letter(4))
    names = ["fifo.eml", "empty", "nothing", "none", "large", "good", "box", "hostile\x1b[31m\n\udcff"]
    done = console.run("import", *(os.fsdecode(os.fsencode(folder / name)) for name in names))
    assert (done.status, done.errors) == (EX_DATAERR, "")
    said = {}
    for line in done.output.decode().splitlines():
        name, _, reason = line.removeprefix(f"{folder}/").partition(": ")
        said[name] = reason
    summary = next(name for name in said if "refused" in name)
    assert summary == "6 refused, 3 delivered"
    assert said["fifo.eml"] == "refused: not a regular file; use - to read a message or an mbox from stdin"
    assert said["empty"] == "refused: the file is empty"
    assert said["nothing"] == "refused: neither a Maildir nor a folder with *.eml files"
    assert said["none"] == "refused: No such file or directory"
    for name in ("large", "box#1"):
        assert re.fullmatch("refused: 2[0-9]{3} octets, more than limits.message_size = 2000", said[name])
    assert said["box#2"].startswith("delivered")
    assert said["hostile\N{REPLACEMENT CHARACTER}[31m \\xff"].startswith("delivered")


def quarantined(database: Database, raw: bytes) -> str:
    """A message in quarantine; returns its UUID."""
    store = MessageStore(database.conninfo)
    try:
        return store.ingest(submission(raw, "a@example.com", "b@example.com", parsed=ParsedMessage(error="broken")))[
            0
        ].message
    finally:
        store.close()


def test_export_and_import(console: Console, database: Database, folder: Path) -> None:
    """A message that is exported and imported unchanged is a duplicate for each of its recipients."""
    for raw in (LETTER, LETTER.replace(b"<1@", b"<2@").replace(b"\n", b"\r\n"), b"no header", b"\nbody only\n"):
        quarantined(database, raw)
    console.run("quarantine", "export", "--all", "--to", folder / "out")
    before = everything(database)
    said = console.run("import", folder / "out").text
    assert said.endswith("\n8 duplicate\n")
    assert said.count("in quarantine; `pipehandler reparse ") == 8
    assert everything(database) == before


def test_export_and_import_of_everything(console: Console, database: Database, folder: Path) -> None:
    """Whatever the bytes and the addresses: importing an export again changes nothing, except what the later copy
    names."""
    raws = {path.name: path.read_bytes() for path in GOLDEN.glob("*.eml")}
    raws |= {f"crlf {name}": raw.replace(b"\n", b"\r\n") for name, raw in raws.items()}
    raws |= {"prepended": HEAD + LETTER, "mbox line": b"From x Mon\n" + LETTER, "nothing else": HEAD}
    store = MessageStore(database.conninfo)
    for number, raw in enumerate(raws.values()):
        envelope = Envelope(("", "b a@x", "a@x")[number % 3], (f'{number} "\\ü@x',), ("o@x",) if number % 2 else ())
        store.ingest(submission(raw, parsed=ParsedMessage(error="broken"), envelope=envelope))
    store.close()
    assert console.run("quarantine", "export", "--all", "--to", folder / "out").text.count("--recipient") == 0
    before = everything(database)
    assert console.run("import", folder / "out").text.endswith(f"\n{len(raws)} duplicate\n")
    after = everything(database)
    after["delivery"] = [row._replace(later_original_recipients=[], later_list_ids=[]) for row in after["delivery"]]
    assert after == before


ODD = [
    *(
        "we ird@x",
        '"quoted"@x',
        'a"b@x',
        "a\\b@x",
        "a\\@x",
        "<a@x>",
        "a@x>",
        "<>@x",
        "<",
        ">",
        "a,b;c:(d)@x",
        "a@b@x",
        "@x",
        "a@",
        "a",
    ),
    *(
        "-dash@x",
        "--sender=x@y",
        ".a@x",
        "a..b@x",
        "a.@x",
        "[1]@[127.0.0.1]",
        "\u00fc@b\u00fccher.example",
        "\u03b1\u0301@x",
    ),
    *("\u202ea@x", "\ufeffa@x", "\u3000a\u3000@x", "\u2028@x", "\x85@x", "\U0001f600@x", "\ud55c\uae00@x"),
    *(
        "\x01@x",
        "\r@x",
        "\x1b[31m@x",
        "\x7f@x",
        "a\tb@x",
        " a@x",
        "a @x",
        "a@ x",
        "\ta@x\t",
        "\x0b\x0c@x",
        "\x1c\x1d\x1e@x",
        "a@x\x1f",
    ),
    *(
        "=?utf-8?q?a?=@x",
        "%s@x",
        "'a'@x",
        "a\u0000@x".replace("\0", "\\0"),
        "x" * 900 + "@x",
        '"' * 300 + "@x",
        "\ufdfa" * 300 + "@x",
    ),
    *("x" * 5_000 + "@x", "\u00e4 " * 2_000 + "@x", "a@" + "x" * 3_000),
]
"""Addresses of every kind in a delivery, each in its internal form."""

WITH_LINE_END = ["a\nb@x", "a\r\nTo: c@x", "\n@x", "a@x\n"]
"""Addresses that no field can represent."""


def rows(database: Database) -> list[tuple[str, str]]:
    """Sender and recipient of each delivery, in the order of the messages."""
    return [
        (row.sender, row.recipient)
        for row in database.rows("SELECT sender, recipient FROM pipehandler.delivery ORDER BY message, recipient")
    ]


def test_export_and_import_of_every_address(console: Console, database: Database, folder: Path) -> None:
    """Sender and recipient are preserved, even in an empty database; export reports those that no field can
    represent."""
    random = Random(1)
    made = [
        "".join(random.choices(SPECIAL, k=random.randint(1, 12))) + random.choice(["", "@x", "@X.y"]) for _ in range(60)
    ]
    addresses = [*ODD, *(address for address in made if address not in ODD)]
    store = MessageStore(database.conninfo)
    for number, address in enumerate([*addresses, *WITH_LINE_END]):
        envelope = Envelope(addresses[-number % len(addresses)], (lower_domain(address),))
        store.ingest(submission(letter(number), parsed=ParsedMessage(error="broken"), envelope=envelope))
    store.close()
    before = rows(database)
    said = console.run("quarantine", "export", "--all", "--to", folder / "out").text
    assert said.count("--recipient") == len(WITH_LINE_END)
    database.execute(
        "TRUNCATE pipehandler.delivery, pipehandler.message, pipehandler.raw_message, pipehandler.attachment"
    )
    done = console.run("import", folder / "out")
    assert done.output.decode().count("use --recipient") == len(WITH_LINE_END)
    for path in (folder / "out").iterdir():
        (number,) = re.findall(rb"<(\d+)@example", path.read_bytes())
        if int(number) >= len(addresses):
            address, sender = WITH_LINE_END[int(number) - len(addresses)], addresses[-int(number) % len(addresses)]
            assert console.run("import", f"--recipient={address}", f"--sender={sender}", path).status == 0
    assert rows(database) == before


def test_raw_and_import(console: Console, database: Database) -> None:
    """The bytes of a message and its envelope, given to import as arguments, are the same delivery."""
    store = MessageStore(database.conninfo)
    chosen = [*ODD[::12], *WITH_LINE_END[1:3]]
    for number, address in enumerate(chosen):
        store.ingest(submission(letter(number), envelope=Envelope(address, (lower_domain(address),))))
    store.close()
    before = rows(database)
    found = database.rows("SELECT id, sender, recipient, original_recipient FROM pipehandler.delivery ORDER BY id")
    raw = [console.run("raw", str(row.id)).output for row in found]
    database.execute(
        "TRUNCATE pipehandler.delivery, pipehandler.message, pipehandler.raw_message, pipehandler.attachment"
    )
    for row, octets in zip(found, raw, strict=True):
        recipient = row.original_recipient or row.recipient
        done = console.run("import", f"--recipient={recipient}", f"--sender={row.sender}", "-", stdin=octets)
        assert done.text.endswith("\n1 delivered\n")
    assert rows(database) == before


def test_into_quarantine(console: Console, database: Database, folder: Path) -> None:
    """A message that cannot be parsed is stored, as at every ingress, and the reason is reported."""
    console.configure(more="limits.parse_timeout = 1")
    (folder / "poison.eml").write_bytes(HEAD + POISON)
    said = console.run_under(slow(1.5), "import", folder / "poison.eml").text
    assert re.sub(", received .* file:", ":", said) == (
        f"{folder}/poison.eml: quarantined {identify(POISON).id}: not parsed within 1 s\n1 quarantined\n"
    )
    assert raws(database) == [POISON]


def test_edit_and_import(console: Console, database: Database, folder: Path) -> None:
    """An edit that does not change the fingerprint is a duplicate until the original is dropped, which import reports;
    then it is stored."""
    found = quarantined(database, LETTER)
    console.run("quarantine", "export", found, "--to", folder / "out")
    for path in (folder / "out").iterdir():
        path.write_bytes(path.read_bytes().replace(b"Received: by mx\n", b"Received: by mx\nX-Edited: yes\n"))
    said = console.run("import", folder / "out").text
    assert said.count(f"`pipehandler quarantine drop {found}` comes first") == 2
    console.run("quarantine", "drop", "--yes", found)
    assert console.run("import", folder / "out").text.endswith("\n2 delivered\n")
    rows = database.rows(
        "SELECT recipient, sender, m.state FROM pipehandler.delivery JOIN pipehandler.message m ON m.id = message ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [
        *(("a@example.com", "a@example.org", "parsed"), ("b@example.com", "a@example.org", "parsed")),
    ]
    assert raws(database) == [LETTER.replace(b"mx\n", b"mx\nX-Edited: yes\n")]


def test_edit_of_the_body(console: Console, database: Database, folder: Path) -> None:
    """An edit of the body makes a different message."""
    found = quarantined(database, LETTER)
    console.run("quarantine", "export", found, "--to", folder / "out")
    for path in (folder / "out").iterdir():
        path.write_bytes(path.read_bytes() + b"edited\n")
    assert console.run("import", folder / "out").text.endswith("\n2 delivered\n")


def test_interrupted(console: Console, database: Database, folder: Path) -> None:
    """Ctrl-C and kill -9 leave only whole messages, and the next run stores the rest once."""
    for number in range(300):
        (folder / f"{number}.eml").write_bytes(HEAD + letter(number))
    for how, status in ((signal.SIGINT, EX_INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)):
        before = database.value("SELECT count(*) FROM pipehandler.delivery")
        running = console.start("import", folder)
        some = f"SELECT count(*) >= {before + 20} FROM pipehandler.delivery"
        wait_until(partial(database.value, some), "the first messages")
        assert running.poll() is None
        running.send_signal(how)
        output, errors = running.communicate(timeout=60)
        assert running.returncode == status, (output, errors)
        if how == signal.SIGINT:
            assert b"Error: interrupted; run it again to continue" in errors
        assert before + 20 <= database.value("SELECT count(*) FROM pipehandler.delivery") < 300
    console.run("import", folder)
    counts = {table: len(rows) for table, rows in everything(database).items()}
    assert counts == {"message": 300, "raw_message": 300, "delivery": 300, "attachment": 0}


def test_database_is_away(own_database: Database, folder: Path) -> None:
    """Without a database it stops at once with EX_TEMPFAIL, and reports that another run will continue."""
    console = Console(folder, own_database)
    for number in range(3):
        (folder / f"{number}.eml").write_bytes(HEAD + letter(number))
    own_database.server.stop()
    done = console.run("import", folder)
    own_database.server.start()
    assert done.status == EX_TEMPFAIL
    assert done.errors.startswith(f"Error: {folder}/0.eml: message store unavailable: ")
    assert "run it again to continue: stored messages are not stored twice" in done.errors


def test_database_is_not_ready(console: Console, database: Database, folder: Path) -> None:
    """A fault that persists until an operator acts ends it with EX_UNAVAILABLE and a hint."""
    (folder / "one.eml").write_bytes(HEAD + LETTER)
    database.execute("DROP SCHEMA pipehandler CASCADE")
    done = console.run("import", folder / "one.eml")
    assert done.status == EX_UNAVAILABLE
    assert "there is no schema pipehandler: run `pipehandler migrate`" in done.errors


def test_envelope_that_the_database_cannot_take(console: Console, database: Database, folder: Path) -> None:
    """Only the file whose recipient cannot be stored is refused; a recipient that is too long is shortened."""
    (folder / "1.eml").write_bytes(b"Delivered-To: a\0b@example.com\n" + letter(1))
    (folder / "2.eml").write_bytes(b"Delivered-To: " + os.urandom(4000).hex().encode() + b"@example.com\n" + letter(2))
    (folder / "3.eml").write_bytes(HEAD + letter(3))
    done = console.run("import", folder)
    assert (done.status, done.errors) == (EX_DATAERR, "")
    assert done.output.count(b".eml: refused: the database cannot store its envelope: ") == 1
    assert done.output.endswith(b"\n1 refused, 2 delivered\n")
    assert letter(3) in raws(database)


def test_roles(console: Console, database: Database, folder: Path) -> None:
    """The maintenance role may import (above); a reader may not, and gets an error; the handler's role may, but learns
    nothing of the quarantine."""
    (folder / "one.eml").write_bytes(HEAD + LETTER)
    console.configure("reader")
    done = console.run("import", folder / "one.eml")
    assert done.status == EX_UNAVAILABLE
    assert "permission denied" in done.errors
    assert "pipehandler_maintenance" in done.errors
    console.configure("pipehandler")
    assert "1 delivered" in console.run("import", folder / "one.eml").text
    assert "1 duplicate" in console.run("import", folder / "one.eml").text
    assert len(everything(database)["message"]) == 1


def test_usage(console: Console) -> None:
    """A recipient that is not an address is a usage error."""
    for recipient in ("", "bogus", "ann example.com"):
        done = console.run("import", "x", "--recipient", recipient)
        assert done.status == 2
        assert "is not an address: expected LOCAL@DOMAIN" in done.errors
