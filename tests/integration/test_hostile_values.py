"""The operator's commands over a database, a journal and files in which every value is hostile: no value is interpreted
or trusted."""

import json
import sqlite3
import time
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest
from harness.console import Console
from harness.database import Database
from harness.submission import submission

from pipehandler.mail.parsed import ParsedMessage
from pipehandler.record.journal import NAME, Journal
from pipehandler.store.message_store import MessageStore

CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
ALL = "".join(
    chr(code)
    for code in range(1, 0x110000)
    if unicodedata.category(chr(code)) in CATEGORIES - {"Cs"} and code not in range(0xE001, 0xF8FF)
)[:500]
HOSTILE = (
    f"x\nFORGED 1\rFORGED 2\x1b[2JFORGED 3\x85FORGED 4\u2028FORGED 5\u2029FORGED 6\v\fFORGED 7{ALL}\U000e0041\u202eend"
)
LETTER = b"From: a@example.org\nMessage-ID: <1@example.org>\n\nbody\n"

TEXT = """
SELECT format('UPDATE pipehandler.%%I SET %%I = %%%%s', table_name, column_name) AS statement
  FROM information_schema.columns
 WHERE table_schema = 'pipehandler' AND table_name IN ('message', 'attachment', 'delivery') AND data_type = 'text'
   AND column_name <> 'state' AND is_generated = 'NEVER'
"""
MAILBOXES = json.dumps([{"name": HOSTILE, "address": HOSTILE, "group": HOSTILE}])


def without_constraints(database: Database) -> None:
    """Drop the CHECK constraints, as a superuser can."""
    # Of a table before those of its partitions.
    while rows := database.rows(
        "SELECT conrelid::regclass::text AS name, conname FROM pg_constraint"
        " WHERE connamespace = 'pipehandler'::regnamespace AND contype = 'c' AND conrelid <> 0 AND coninhcount = 0"
    ):
        for row in rows:
            database.execute(f'ALTER TABLE {row.name} DROP CONSTRAINT "{row.conname}"')


@pytest.fixture
def hostile(database: Database, folder: Path) -> Console:
    """A parsed and a failed message, each text of which is hostile, and a journal with hostile records."""
    store = MessageStore(database.conninfo)
    database.execute("SELECT pipehandler.lease_address('user@example.com')")
    store.ingest(submission(LETTER))
    store.ingest(submission(b"broken", "b@example.com", parsed=ParsedMessage(error="not parsed")))
    store.close()
    without_constraints(database)
    for row in database.rows(TEXT.replace("%%%%s", "%%s").replace("%%I", "%I")):
        if row.statement.endswith("SET recipient = %s"):
            database.execute("UPDATE pipehandler.delivery SET recipient = id || %s", HOSTILE)
        else:
            database.execute(row.statement, HOSTILE)
    for name in ("from_list", "sender_list", "reply_to_list", "to_list", "cc_list", "bcc_list"):
        database.execute(f"UPDATE pipehandler.message SET {name} = %s", MAILBOXES)
    database.execute("UPDATE pipehandler.message SET header = %s", json.dumps([[HOSTILE, HOSTILE]]))
    database.execute("UPDATE pipehandler.message SET authentication = %s", json.dumps({HOSTILE: HOSTILE}))
    defects = json.dumps([{"code": HOSTILE, "where": HOSTILE, "detail": HOSTILE}])
    database.execute("UPDATE pipehandler.message SET defects = %s", defects)
    database.execute("UPDATE pipehandler.address SET label = %s", HOSTILE)
    database.execute(
        "INSERT INTO pipehandler.raw_message SELECT id, '' FROM pipehandler.message ON CONFLICT DO NOTHING"
    )
    state = folder / "nowhere"
    state.mkdir()
    book = Journal(str(state))
    book.begin("pipe", "cold", "1", time.monotonic())
    book.close()
    with closing(sqlite3.connect(state / NAME)) as journal, journal:
        journal.execute(
            "UPDATE attempt SET began = ?, queue_id = ?, status = 75, reason = ?", (time.time(), HOSTILE, HOSTILE)
        )
        journal.execute("UPDATE attempt SET action = ?, message = ?, sqlstate = ?", ("fault", HOSTILE, HOSTILE))
        journal.execute("INSERT INTO total VALUES (?, ?, 75, ?, 1, 1, 1)", (HOSTILE, HOSTILE, HOSTILE))
        journal.execute("INSERT INTO duration VALUES (?, ?, 1, 1, 1)", (HOSTILE, HOSTILE))
    console = Console(folder, database)
    console.config.write_text(
        f"database.admin_conninfo = '{database.admin}'\ndatabase.conninfo = '{database.admin}'\nlog.syslog = false\n"
        f"state.directory = '{state}'\nserve.socket = '{folder / 'socket'}'\n"
    )
    return console


COMMANDS: list[tuple[str, ...]] = [
    ("list",),
    ("list", "--json"),
    ("show", "1"),
    ("show", "--header", "1"),
    ("show", "--json", "1"),
    ("quarantine", "list"),
    ("quarantine", "list", "--json"),
    ("quarantine", "list", "--reasons"),
    ("quarantine", "show", "2"),
    ("quarantine", "show", "--json", "2"),
    ("quarantine", "drop", "2"),
    ("quarantine", "drop", "--yes", "2"),
    ("quarantine", "export", "--all", "--to", "FOLDER"),
    ("quarantine", "drop", "--dry-run", "2"),
    ("remove", "1"),
    ("remove", "--sender", HOSTILE),
    ("remove", "--dry-run", "--json", "--subject", "*"),
    ("address", "remove", "1"),
    ("address", "list"),
    ("address", "list", "--json"),
    ("address", "extend", "1"),
    ("address", "expire", "1"),
    ("address", "expire", "--json", "1"),
    ("address", "remove", "--yes", "1"),
    ("address", "add", f"{HOSTILE}@example.com"),
    ("address", "extend", HOSTILE),
    ("show", HOSTILE),
    ("raw", HOSTILE),
    ("reparse", "--all", "--dry-run"),
    ("reparse", "--all", "--verbose"),
    ("reparse", "--all", "--json"),
    ("reparse", "--all"),
    ("expire",),
    ("status",),
    ("status", "--json"),
    ("metrics",),
    ("check", "--part", "handler"),
    ("check", "--part", "handler", "--json"),
    ("import", "FOLDER/" + HOSTILE.replace("/", "")[:60]),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: ascii(" ".join(arguments))[:40])
def test_nothing_hostile_goes_out(hostile: Console, arguments: tuple[str, ...]) -> None:
    """Whatever a command shows, it prints no character of these categories, no foreign value begins a line, and it does
    not fail."""
    words = [word.replace("FOLDER", str(hostile.folder)) for word in arguments]
    if "import" in words:
        Path(words[-1]).write_bytes(LETTER)
    done = hostile.run(*words, stdin=b"n\n")
    text = done.output.decode() + done.errors
    assert "Traceback" not in text
    assert text
    assert {unicodedata.category(char) for char in text.replace("\n", "")} & CATEGORIES == set()
    assert [line for line in text.split("\n") if line.lstrip().startswith("FORGED")] == []
    if "--json" in words and done.output:
        for part in done.output.decode().splitlines() if "reparse" in words else [done.output.decode()]:
            json.loads(part)


def test_follow(hostile: Console) -> None:
    """The stream shows hostile values as it shows others, on one line for each delivery."""
    for arguments in ((), ("--json",)):
        running = hostile.start("follow", "--from-start", *arguments)
        assert running.stdout is not None
        lines = [running.stdout.readline().decode() for _ in range(2)]
        running.terminate()
        running.communicate()
        assert {unicodedata.category(char) for line in lines for char in line.rstrip("\n")} & CATEGORIES == set()
        assert not any(line.startswith("FORGED") for line in lines)
        if arguments:
            assert [json.loads(line)["id"] for line in lines] == [1, 2]
